rule folds:
    input:
        cases="<results>/cases.parquet",
    output:
        folds="<results>/folds/{task}/folds.json",
    log:
        "<logs>/folds/{task}.log",
    benchmark:
        "<benchmarks>/folds/{task}.tsv"
    localrule: True
    conda:
        "../../envs/shazam.yaml"
    params:
        cfg=folds_job,
        version=version(stage_versions.stage("folds")),
    shell:
        "python -m pipeline folds --cfg {params.cfg:q} --root $(dirname {input.cases:q})"
        " --task {wildcards.task} > {log:q} 2>&1"
