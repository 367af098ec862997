if SPEAKING:

    rule vision_language:
        # What prompts say, on the same cases and folds as the trained models.
        input:
            cases_to_features="<results>/case_to_features.json",
            cases="<results>/cases.parquet",
            folds=collect("<results>/folds/{task}/folds.json", task=ASKED),
        output:
            summary="<results>/vision_language/{spoken}/zero_shot.json",
            predictions=collect(
                "<results>/models/{task}/zero_shot_{{spoken}}/predictions.parquet",
                task=ASKED,
            ),
            spread=report(
                "<results>/vision_language/{spoken}/spread.csv",
                caption="../report/vision_language.rst",
                category="Teachers",
                labels={"teacher": "{spoken}", "table": "zero-shot, over prompts"},
            ),
        log:
            "<logs>/vision_language/{spoken}.log",
        benchmark:
            "<benchmarks>/vision_language/{spoken}.tsv"
        conda:
            "../../envs/shazam.yaml"
        resources:
            mem_mb=8000,
        params:
            cfg=vision_language_job,
            version=version(stage_versions.stage("vision_language")),
        shell:
            "python -m pipeline vision-language --cfg {params.cfg:q}"
            " --root $(dirname {input.cases:q}) --teacher {wildcards.spoken} > {log:q} 2>&1"
