rule training:
    input:
        cases_to_features="<results>/case_to_features.json",
        cases="<results>/cases.parquet",
        folds="<results>/folds/{task}/folds.json",
    output:
        predictions="<results>/models/{task}/{model}/predictions.parquet",
    log:
        "<logs>/training/{task}/{model}.log",
    benchmark:
        "<benchmarks>/training/{task}/{model}.tsv"
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
