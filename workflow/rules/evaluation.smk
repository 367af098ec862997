rule evaluation:
    input:
        cohort="<results>/cohort.json",
        folds="<results>/folds/{task}/folds.json",
        predictions=lambda wildcards: collect(
            "<results>/models/{task}/{model}/predictions.parquet",
            task=wildcards.task,
            model=MODELS + speaking.zero_shot_models(CONFIG, wildcards.task),
        ),
    output:
        summary="<results>/evaluation/{task}/evaluation.json",
        metrics=report(
            "<results>/evaluation/{task}/metrics.csv",
            caption="../report/metrics.rst",
            category="Evaluation",
            labels={"task": "{task}", "table": "metrics"},
        ),
        comparisons=report(
            "<results>/evaluation/{task}/comparisons.csv",
            caption="../report/comparisons.rst",
            category="Evaluation",
            labels={"task": "{task}", "table": "student against each model"},
        ),
    log:
        "<logs>/evaluation/{task}.log",
    benchmark:
        "<benchmarks>/evaluation/{task}.tsv"
    conda:
        "../../envs/shazam.yaml"
    resources:
        mem_mb=4000,
    params:
        cfg=job(stage_params.evaluation, "task"),
        version=evaluation_version,
    shell:
        "python -m pipeline evaluation --cfg {params.cfg:q} --root $(dirname {input.cohort:q})"
        " --task {wildcards.task} > {log:q} 2>&1"
