TILED = collect(
    "<results>/tiles/manifest/{chunk}.json", chunk=CHUNKS if ON_TILES else []
)
EXTRACTED = collect(
    "<results>/features/{teacher}/manifest/{chunk}.json",
    teacher=MAPPED,
    chunk=CHUNKS,
)


rule mapping:
    # What went wrong is told here, and refused by the next rule: Snakemake deletes what a failed
    # job wrote.
    input:
        slides="<results>/slides.parquet",
        tiles=TILED,
        features=EXTRACTED,
    output:
        coverage="<results>/coverage.parquet",
        ledger="<results>/ledger.parquet",
        flow="<results>/cohort_flow.json",
        coverage_csv=report(
            "<results>/coverage.csv",
            caption="../report/coverage.rst",
            category="Cohort",
            labels={"table": "features per slide and teacher"},
        ),
        ledger_csv=report(
            "<results>/ledger.csv",
            caption="../report/ledger.rst",
            category="Cohort",
            labels={"table": "what could not be used, and why"},
        ),
    log:
        "<logs>/mapping.log",
    benchmark:
        "<benchmarks>/mapping.tsv"
    localrule: True
    conda:
        "../../envs/shazam.yaml"
    params:
        cfg=job(stage_params.mapping),
        version=version(stage_versions.stage("mapping")),
    shell:
        # What mapping says of slides with a warning is for the terminal, too.
        "python -m pipeline mapping --cfg {params.cfg:q} --root $(dirname {output.flow:q})"
        " 2>&1 | tee {log:q}"


rule mapping_check:
    input:
        flow="<results>/cohort_flow.json",
        slides="<results>/slides.parquet",
        tiles=TILED,
        features=EXTRACTED,
    output:
        cases_to_features="<results>/case_to_features.json",
        cases="<results>/cases.parquet",
    log:
        "<logs>/mapping_check.log",
    benchmark:
        "<benchmarks>/mapping_check.tsv"
    localrule: True
    conda:
        "../../envs/shazam.yaml"
    params:
        cfg=job(stage_params.mapping),
        version=version(stage_versions.stage("mapping")),
    shell:
        "python -m pipeline mapping-check --cfg {params.cfg:q} --root $(dirname {output.cases:q})"
        " > {log:q} 2>&1"
