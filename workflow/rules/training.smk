rule training:
    input:
        cases_to_features="<results>/case_to_features.json",
        cases="<results>/cases.parquet",
        folds="<results>/folds/{task}/folds.json",
        made=lambda wildcards: features_of_made(wildcards.model, wildcards.task),
    output:
        predictions="<results>/models/{task}/{model}/predictions.parquet",
    log:
        "<logs>/training/{task}/{model}.log",
    benchmark:
        "<benchmarks>/training/{task}/{model}.tsv"
    wildcard_constraints:
        model=ALONE,
    conda:
        "../../envs/shazam.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        gpu=0,
    params:
        cfg=job(stage_params.training, "task", "model"),
        version=training_version,
    shell:
        "python -m pipeline training --cfg {params.cfg:q}"
        " --root $(dirname {input.cases:q}) --task {wildcards.task} --model {wildcards.model}"
        " --workers {threads} --gpus {resources.gpu}"
        " > {log:q} 2>&1"


if LINEAR:

    rule training_linear:
        # Each takes less time than a job's start. Those that are finished are recognised.
        input:
            cases_to_features="<results>/case_to_features.json",
            cases="<results>/cases.parquet",
            folds="<results>/folds/{task}/folds.json",
            made=lambda wildcards: [
                manifest
                for model in LINEAR
                for manifest in features_of_made(model, wildcards.task)
            ],
        output:
            predictions=collect(
                "<results>/models/{{task}}/{model}/predictions.parquet", model=LINEAR
            ),
        log:
            "<logs>/training_linear/{task}.log",
        benchmark:
            "<benchmarks>/training_linear/{task}.tsv"
        conda:
            "../../envs/shazam.yaml"
        resources:
            mem_mb=8000,
        params:
            cfg=job(stage_params.linear_models, "task"),
            version=linear_version,
        shell:
            "python -m pipeline training-linear --cfg {params.cfg:q}"
            " --root $(dirname {input.cases:q}) --task {wildcards.task} > {log:q} 2>&1"


rule out_of_fold:
    input:
        cases_to_features="<results>/case_to_features.json",
        cases="<results>/cases.parquet",
        folds="<results>/folds/{task}/folds.json",
        predictions="<results>/models/{task}/{model}/predictions.parquet",
    output:
        predictions="<results>/models/{task}/{model}/out_of_fold.parquet",
    log:
        "<logs>/out_of_fold/{task}/{model}.log",
    benchmark:
        "<benchmarks>/out_of_fold/{task}/{model}.tsv"
    wildcard_constraints:
        model=SEEING,
    conda:
        "../../envs/shazam.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        gpu=0,
    params:
        cfg=job(stage_params.training, "task", "model"),
        version=out_of_fold_version,
    shell:
        "python -m pipeline out-of-fold --cfg {params.cfg:q}"
        " --root $(dirname {input.cases:q}) --task {wildcards.task} --model {wildcards.model}"
        " --workers {threads} --gpus {resources.gpu}"
        " > {log:q} 2>&1"


rule stacking:
    input:
        cases="<results>/cases.parquet",
        folds="<results>/folds/{task}/folds.json",
        predictions=stacked("predictions"),
        out_of_fold=stacked("out_of_fold"),
    output:
        predictions="<results>/models/{task}/{model}/predictions.parquet",
    log:
        "<logs>/stacking/{task}/{model}.log",
    benchmark:
        "<benchmarks>/stacking/{task}/{model}.tsv"
    wildcard_constraints:
        model=STACKED,
    conda:
        "../../envs/shazam.yaml"
    resources:
        mem_mb=4000,
    params:
        cfg=job(stage_params.stacking, "task", "model"),
        version=stacking_version,
    shell:
        "python -m pipeline stacking --cfg {params.cfg:q}"
        " --root $(dirname {input.cases:q}) --task {wildcards.task} --model {wildcards.model}"
        " > {log:q} 2>&1"
