if CONFIG.cohort.source == "synthetic":

    rule cohort_synthesise:
        output:
            sheet="<resources>/slides.csv",
        log:
            "<logs>/cohort_synthesise.log",
        benchmark:
            "<benchmarks>/cohort_synthesise.tsv"
        conda:
            "../envs/shazam.yaml"
        threads: 8
        params:
            cfg=job(jobs.synthesis),
            code=provenance.code_fingerprint("pipeline.cohort.synthetic"),
        shell:
            "python -m pipeline cohort synthesise --cfg {params.cfg:q} --sheet {output.sheet:q}"
            " --workers {threads} > {log:q} 2>&1"


rule cohort:
    input:
        sheet=(
            "<resources>/slides.csv"
            if CONFIG.cohort.source == "synthetic"
            else CONFIG.cohort.sheet
        ),
    output:
        slides="<results>/slides.parquet",
        facts="<results>/cohort.json",
    log:
        "<logs>/cohort.log",
    benchmark:
        "<benchmarks>/cohort.tsv"
    localrule: True
    conda:
        "../envs/shazam.yaml"
    params:
        cfg=job(jobs.cohort),
        code=provenance.stage_code("cohort"),
    shell:
        "python -m pipeline cohort check --cfg {params.cfg:q} --root $(dirname {output.slides:q})"
        " > {log:q} 2>&1"
