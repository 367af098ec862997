if EXTERNAL is not None:

    # Nothing is trained here: these make what training and its evaluation make of other cohorts.
    ruleorder: external_predictions > training
    ruleorder: external_stacking > stacking
    ruleorder: external > evaluation

    rule external_predictions:
        input:
            cases_to_features="<results>/case_to_features.json",
            cases="<results>/cases.parquet",
            made=lambda wildcards: features_of_made(wildcards.model, wildcards.task),
            trained=f"{EXTERNAL.trained}/models/{{task}}/{{model}}/predictions.parquet",
        output:
            predictions="<results>/models/{task}/{model}/predictions.parquet",
        log:
            "<logs>/external_predictions/{task}/{model}.log",
        benchmark:
            "<benchmarks>/external_predictions/{task}/{model}.tsv"
        wildcard_constraints:
            model=SEEING,
        conda:
            "../../envs/shazam.yaml"
        threads: 1
        resources:
            mem_mb=8000,
            gpu=0,
        params:
            cfg=job(stage_params.external_predictions, "task", "model"),
            version=version(stage_versions.external_predictions()),
        shell:
            "python -m pipeline external-predictions --cfg {params.cfg:q}"
            " --root $(dirname {input.cases:q}) --task {wildcards.task}"
            " --model {wildcards.model} --workers {threads} --gpus {resources.gpu}"
            " > {log:q} 2>&1"

    rule external_stacking:
        input:
            cases="<results>/cases.parquet",
            trained=f"{EXTERNAL.trained}/models/{{task}}/{{model}}/predictions.parquet",
            members=stacked("predictions"),
        output:
            predictions="<results>/models/{task}/{model}/predictions.parquet",
        log:
            "<logs>/external_predictions/{task}/{model}.log",
        benchmark:
            "<benchmarks>/external_predictions/{task}/{model}.tsv"
        wildcard_constraints:
            model=STACKED,
        conda:
            "../../envs/shazam.yaml"
        resources:
            mem_mb=4000,
        params:
            cfg=job(stage_params.external_predictions, "task", "model"),
            version=version(stage_versions.external_predictions()),
        shell:
            "python -m pipeline external-predictions --cfg {params.cfg:q}"
            " --root $(dirname {input.cases:q}) --task {wildcards.task}"
            " --model {wildcards.model} > {log:q} 2>&1"

    rule external:
        input:
            cases="<results>/cases.parquet",
            trained=f"{EXTERNAL.trained}/evaluation/{{task}}/evaluation.json",
            predictions=collect(
                "<results>/models/{{task}}/{model}/predictions.parquet", model=MODELS
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
            "<logs>/external/{task}.log",
        benchmark:
            "<benchmarks>/external/{task}.tsv"
        conda:
            "../../envs/shazam.yaml"
        resources:
            mem_mb=4000,
        params:
            cfg=job(stage_params.external, "task"),
            version=external_version,
        shell:
            "python -m pipeline external --cfg {params.cfg:q} --root $(dirname {input.cases:q})"
            " --task {wildcards.task} > {log:q} 2>&1"
