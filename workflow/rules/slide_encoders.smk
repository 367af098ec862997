if SLIDE_ENCODERS:

    rule slide_encoders:
        # A vector for each slide from the features of a tile teacher, which comes along unasked.
        input:
            check="<results>/features/{teacher}/check.json",
            features=features_of_input,
        output:
            manifest="<results>/features/{teacher}/manifest/{chunk}.json",
        log:
            "<logs>/slide_encoders/{teacher}/{chunk}.log",
        benchmark:
            "<benchmarks>/slide_encoders/{teacher}/{chunk}.tsv"
        wildcard_constraints:
            teacher="|".join(map(re.escape, SLIDE_ENCODERS)),
        conda:
            environment
        threads: 2
        resources:
            mem_mb=8000,
            gpu=0,
        params:
            cfg=job(stage_params.slide_encoders, "teacher"),
            version=slide_encoders_version,
        shell:
            "python -m pipeline slide-encoders --cfg {params.cfg:q}"
            " --root $(dirname $(dirname $(dirname {input.check:q})))"
            " --teacher {wildcards.teacher} --chunk {wildcards.chunk} --out {output.manifest:q}"
            " --gpus {resources.gpu} > {log:q} 2>&1"
