if ENCODERS or SLIDE_ENCODERS or MADE:

    rule extraction_check:
        # Once per teacher, where the network is: licence, token, weights, their hash, keys, output.
        input:
            encoder_of,
        output:
            facts="<results>/features/{teacher}/check.json",
        log:
            "<logs>/extraction_check/{teacher}.log",
        benchmark:
            "<benchmarks>/extraction_check/{teacher}.tsv"
        wildcard_constraints:
            teacher="|".join(map(re.escape, [*RUN, *SLIDE_ENCODERS, *MADE])),
        priority: 1
        localrule: True
        conda:
            environment
        params:
            cfg=check_job,
            version=check_version,
        shell:
            "python -m pipeline extraction-check --cfg {params.cfg:q} --out {output.facts:q}"
            " > {log:q} 2>&1"


if ENCODERS or MADE:

    rule extraction:
        input:
            checks=lambda wildcards: collect(
                "<results>/features/{teacher}/check.json",
                teacher=wildcards.teacher.split("+"),
            ),
            slides="<results>/slides/{chunk}.parquet",
            tiles=tiles_of,
        output:
            manifest="<results>/features/{teacher}/manifest/{chunk}.json",
        log:
            "<logs>/extraction/{teacher}/{chunk}.log",
        benchmark:
            "<benchmarks>/extraction/{teacher}/{chunk}.tsv"
        wildcard_constraints:
            teacher="|".join(map(re.escape, [*ENCODERS, *MADE])),
        priority: 1
        conda:
            environment
        threads: 2
        resources:
            mem_mb=8000,
            runtime=extraction_minutes,
            gpu=0,
        params:
            cfg=extraction_job,
            version=extraction_version,
        shell:
            "python -m pipeline extraction --cfg {params.cfg:q}"
            " --root $(dirname $(dirname {input.slides:q})) --chunk {wildcards.chunk}"
            " --out {output.manifest:q} --workers {threads} --gpus {resources.gpu}"
            " > {log:q} 2>&1"


if IMPORTED:

    rule extraction_import:
        input:
            slides="<results>/slides/{chunk}.parquet",
        output:
            manifest="<results>/features/{teacher}/manifest/{chunk}.json",
        log:
            "<logs>/extraction_import/{teacher}/{chunk}.log",
        benchmark:
            "<benchmarks>/extraction_import/{teacher}/{chunk}.tsv"
        wildcard_constraints:
            teacher="|".join(map(re.escape, IMPORTED)),
        conda:
            "../../envs/shazam.yaml"
        resources:
            mem_mb=2000,
        params:
            cfg=extraction_job,
            version=version(stage_versions.imports()),
        shell:
            "python -m pipeline extraction --cfg {params.cfg:q}"
            " --root $(dirname $(dirname {input.slides:q})) --chunk {wildcards.chunk}"
            " --out {output.manifest:q} > {log:q} 2>&1"
