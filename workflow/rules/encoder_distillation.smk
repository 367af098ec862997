if DISTILLED:

    rule encoder_distillation:
        # A small encoder of all teachers; then it is a teacher, and goes the way of the others.
        input:
            slides="<results>/slides.parquet",
            tiles=collect("<results>/tiles/manifest/{chunk}.json", chunk=CHUNKS),
            features=taught_by,
            folds=fold_of_student,
        output:
            facts="<results>/teachers/{encoder}/facts.json",
        log:
            "<logs>/encoder_distillation/{encoder}.log",
        benchmark:
            "<benchmarks>/encoder_distillation/{encoder}.tsv"
        wildcard_constraints:
            encoder="|".join(map(re.escape, DISTILLED)),
        # The longest way to the report begins here.
        priority: 1
        conda:
            "../../envs/shazam.yaml"
        threads: 2
        resources:
            mem_mb=8000,
            gpu=0,
        params:
            cfg=encoder_distillation_job,
            version=version(stage_versions.stage("encoder_distillation")),
        shell:
            "python -m pipeline encoder-distillation --cfg {params.cfg:q}"
            " --root $(dirname {input.slides:q}) --teacher {wildcards.encoder}"
            " --workers {threads} --gpus {resources.gpu} > {log:q} 2>&1"
