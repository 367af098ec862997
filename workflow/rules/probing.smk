if CONFIG.probing is not None:
    GAINS = stage_params.probing_gains(CONFIG)

    rule probing:
        # Besides the way of the slides' models: what each teacher's tiles say as they are.
        input:
            slides="<results>/slides.parquet",
            tiles=collect(
                "<results>/tiles/manifest/{chunk}.json",
                chunk=CHUNKS if ON_TILES else [],
            ),
            features=lambda wildcards: collect(
                "<results>/features/{group}/manifest/{chunk}.json",
                group=group_of(wildcards.probed),
                chunk=CHUNKS,
            ),
        output:
            summary="<results>/probing/{probed}.json",
            table=report(
                "<results>/probing/{probed}.csv",
                caption="../report/probing.rst",
                category="Teachers",
                labels={"teacher": "{probed}", "table": "tile probes"},
            ),
        log:
            "<logs>/probing/{probed}.log",
        benchmark:
            "<benchmarks>/probing/{probed}.tsv"
        conda:
            "../../envs/shazam.yaml"
        resources:
            mem_mb=8000,
        params:
            cfg=probing_job,
            version=version(stage_versions.stage("probing")),
        shell:
            "python -m pipeline probing --cfg {params.cfg:q} --root $(dirname {input.slides:q})"
            " --teacher {wildcards.probed} > {log:q} 2>&1"

    if ROBUST:

        rule robustness:
            # The same tiles under other stains, blur, JPEG and scale.
            input:
                slides="<results>/slides.parquet",
                check="<results>/features/{teacher}/check.json",
                tiles=all_tiles_of,
            output:
                summary="<results>/probing/robustness/{teacher}.json",
                table=report(
                    "<results>/probing/robustness/{teacher}.csv",
                    caption="../report/robustness.rst",
                    category="Teachers",
                    labels={"teacher": "{teacher}", "table": "robustness"},
                ),
            log:
                "<logs>/robustness/{teacher}.log",
            benchmark:
                "<benchmarks>/robustness/{teacher}.tsv"
            wildcard_constraints:
                teacher="|".join(map(re.escape, ROBUST)),
            conda:
                environment
            threads: 2
            resources:
                mem_mb=8000,
                gpu=0,
            params:
                cfg=robustness_job,
                version=robustness_version,
            shell:
                "python -m pipeline robustness --cfg {params.cfg:q}"
                " --root $(dirname {input.slides:q}) --teacher {wildcards.teacher}"
                " --workers {threads} --gpus {resources.gpu} > {log:q} 2>&1"

    if GAINS.pairs:

        rule probing_gains:
            # Encoders that are made here, each against itself before it was trained.
            input:
                slides="<results>/slides.parquet",
                probes=collect(
                    "<results>/probing/{probed}.json",
                    probed=[*GAINS.pairs, *GAINS.pairs.values()],
                ),
            output:
                summary="<results>/probing/all/gains.json",
                table=report(
                    "<results>/probing/all/gains.csv",
                    caption="../report/probing.rst",
                    category="Teachers",
                    labels={"teacher": "all", "table": "gains of training"},
                ),
            log:
                "<logs>/probing_gains.log",
            benchmark:
                "<benchmarks>/probing_gains.tsv"
            conda:
                "../../envs/shazam.yaml"
            resources:
                mem_mb=2000,
            params:
                cfg=job(stage_params.probing_gains),
                version=version(stage_versions.probing_gains()),
            shell:
                "python -m pipeline probing-gains --cfg {params.cfg:q}"
                " --root $(dirname {input.slides:q}) > {log:q} 2>&1"

    if CONFIG.probing.students:

        rule tile_students:
            # Students that see a tile through all teachers, and each teacher's own probes.
            input:
                slides="<results>/slides.parquet",
                tiles=collect(
                    "<results>/tiles/manifest/{chunk}.json",
                    chunk=CHUNKS if ON_TILES else [],
                ),
                features=collect(
                    "<results>/features/{group}/manifest/{chunk}.json",
                    group=MAPPED,
                    chunk=CHUNKS,
                ),
            output:
                summary="<results>/probing/all/students.json",
                table=report(
                    "<results>/probing/all/students.csv",
                    caption="../report/probing.rst",
                    category="Teachers",
                    labels={"teacher": "all", "table": "tile students"},
                ),
            log:
                "<logs>/tile_students.log",
            benchmark:
                "<benchmarks>/tile_students.tsv"
            conda:
                "../../envs/shazam.yaml"
            resources:
                mem_mb=16000,
            params:
                cfg=tile_students_job,
                version=version(stage_versions.tile_students(CONFIG.probing)),
            shell:
                "python -m pipeline tile-students --cfg {params.cfg:q}"
                " --root $(dirname {input.slides:q}) > {log:q} 2>&1"
