rule tiling:
    input:
        slides="<results>/slides/{chunk}.parquet",
    output:
        manifest="<results>/tiles/manifest/{chunk}.json",
    log:
        "<logs>/tiling/{chunk}.log",
    benchmark:
        "<benchmarks>/tiling/{chunk}.tsv"
    conda:
        "../../envs/shazam.yaml"
    threads: 2
    resources:
        mem_mb=2000,
        runtime=tiling_minutes,
    params:
        cfg=tiling_job,
        version=tiling_version,
    shell:
        "python -m pipeline tiling --cfg {params.cfg:q}"
        " --root $(dirname $(dirname {input.slides:q})) --chunk {wildcards.chunk} --out {output.manifest:q}"
        " --workers {threads} > {log:q} 2>&1"


if SCALES:

    rule tiling_scale:
        # Tiles of another size or scale, for the teachers that ask for them.
        input:
            slides="<results>/slides/{chunk}.parquet",
        output:
            manifest="<results>/tiles_{scale}/manifest/{chunk}.json",
        log:
            "<logs>/tiling_scale/{scale}/{chunk}.log",
        benchmark:
            "<benchmarks>/tiling_scale/{scale}/{chunk}.tsv"
        wildcard_constraints:
            scale="|".join(map(re.escape, SCALES)),
        conda:
            "../../envs/shazam.yaml"
        threads: 2
        resources:
            mem_mb=2000,
            runtime=tiling_minutes,
        params:
            cfg=tiling_job,
            version=tiling_version,
        shell:
            "python -m pipeline tiling --cfg {params.cfg:q}"
            " --root $(dirname $(dirname {input.slides:q})) --tiles tiles_{wildcards.scale}"
            " --chunk {wildcards.chunk} --out {output.manifest:q} --workers {threads}"
            " > {log:q} 2>&1"


rule tiling_overview:
    input:
        slides="<results>/slides.parquet",
        manifests=collect("<results>/tiles/manifest/{chunk}.json", chunk=CHUNKS),
    output:
        table=report(
            "<results>/tiles/overview.csv",
            caption="../report/slides.rst",
            category="Slides",
            labels={"table": "area, tiles, scale, stain, blur and pen per slide"},
        ),
        picture=report(
            "<results>/tiles/contact_sheet.jpg",
            caption="../report/slides.rst",
            category="Slides",
            labels={"table": "contact sheet"},
        ),
    log:
        "<logs>/tiling_overview.log",
    benchmark:
        "<benchmarks>/tiling_overview.tsv"
    localrule: True
    conda:
        "../../envs/shazam.yaml"
    params:
        version=version(stage_versions.overview()),
    shell:
        "python -m pipeline tiling-overview --root $(dirname {input.slides:q})"
        " > {log:q} 2>&1"
