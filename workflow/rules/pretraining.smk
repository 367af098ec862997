if PRETRAINED:

    rule pretraining:
        # An encoder of the cohort's own tiles; then it is a teacher, and goes the way of the others.
        input:
            slides="<results>/slides.parquet",
            tiles=collect("<results>/tiles/manifest/{chunk}.json", chunk=CHUNKS),
            folds=fold_of_student,
        output:
            facts="<results>/teachers/{encoder}/facts.json",
        log:
            "<logs>/pretraining/{encoder}.log",
        benchmark:
            "<benchmarks>/pretraining/{encoder}.tsv"
        wildcard_constraints:
            encoder="|".join(map(re.escape, PRETRAINED)),
        # The longest way to the report begins here.
        priority: 1
        conda:
            "../../envs/shazam.yaml"
        threads: 2
        resources:
            mem_mb=8000,
            gpu=0,
        params:
            cfg=pretraining_job,
            version=pretraining_version,
        shell:
            "python -m pipeline pretraining --cfg {params.cfg:q}"
            " --root $(dirname {input.slides:q}) --teacher {wildcards.encoder}"
            " --workers {threads} --gpus {resources.gpu} > {log:q} 2>&1"
