if CONFIG.pairs is not None:

    rule pairs:
        # A teacher for other cohorts: what it learned from must not be asked of it.
        input:
            slides="<results>/slides.parquet",
            tiles=collect(
                "<results>/tiles/manifest/{chunk}.json",
                chunk=CHUNKS,
            ),
        output:
            facts=PAIRED,
        log:
            "<logs>/pairs.log",
        benchmark:
            "<benchmarks>/pairs.tsv"
        conda:
            "../../envs/shazam.yaml"
        threads: 2
        resources:
            mem_mb=8000,
            gpu=0,
        params:
            cfg=pairs_job,
            version=version(stage_versions.stage("pairs")),
        shell:
            "python -m pipeline pairs --cfg {params.cfg:q} --root $(dirname {input.slides:q})"
            " --workers {threads} --gpus {resources.gpu} > {log:q} 2>&1"
