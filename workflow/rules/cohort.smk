rule cohort_chunk:
    # No input: what is in the chunk, and in its files, is part of `cfg`. An edge from a table of
    # the whole cohort would hide a changed `cfg` whenever that table is made again.
    output:
        slides="<results>/slides/{chunk}.parquet",
    log:
        "<logs>/cohort_chunk/{chunk}.log",
    benchmark:
        "<benchmarks>/cohort_chunk/{chunk}.tsv"
    # A sheet's chunk takes a second; only the embedded cohort's slides have to be drawn.
    localrule: CONFIG.cohort.source == "sheet"
    conda:
        "../../envs/shazam.yaml"
    params:
        cfg=chunk_job,
        version=version(stage_versions.cohort_chunk(CONFIG.cohort)),
    shell:
        "python -m pipeline cohort chunk --cfg {params.cfg:q} --chunk {wildcards.chunk}"
        " --out {output.slides:q} --workers {threads} > {log:q} 2>&1"


rule cohort:
    input:
        sheet=[] if CONFIG.cohort.source == "synthetic" else CONFIG.cohort.sheet,
        chunks=collect("<results>/slides/{chunk}.parquet", chunk=CHUNKS),
    output:
        slides="<results>/slides.parquet",
        facts="<results>/cohort.json",
    log:
        "<logs>/cohort.log",
    benchmark:
        "<benchmarks>/cohort.tsv"
    localrule: True
    conda:
        "../../envs/shazam.yaml"
    params:
        cfg=told(
            "cohort",
            cohort=lambda wildcards: CHECKED,
            sheet=lambda wildcards: COHORT.sheet(),
        ),
        version=version(stage_versions.stage("cohort")),
    shell:
        "python -m pipeline cohort check --cfg {params.cfg:q} --root $(dirname {output.slides:q})"
        " > {log:q} 2>&1"
