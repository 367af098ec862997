rule report:
    input:
        cohort="<results>/cohort.json",
        flow="<results>/cohort_flow.json",
        # Too many lost slides end the run, also where no model asks for the cases.
        cases="<results>/cases.parquet",
        slides="<results>/tiles/overview.csv" if ON_TILES else [],
        probes=collect(
            "<results>/probing/{probed}.json",
            probed=PROBED if CONFIG.probing is not None else [],
        ),
        gains=(
            "<results>/probing/all/gains.json"
            if CONFIG.probing is not None and stage_params.probing_gains(CONFIG).pairs
            else []
        ),
        robustness=collect(
            "<results>/probing/robustness/{teacher}.json", teacher=ROBUST
        ),
        encoders=collect("<results>/teachers/{encoder}/facts.json", encoder=OWN),
        tile_students=(
            "<results>/probing/all/students.json"
            if CONFIG.probing is not None and CONFIG.probing.students
            else []
        ),
        words=collect(
            "<results>/vision_language/{spoken}/zero_shot.json", spoken=SPEAKING
        ),
        paired=PAIRED,
        evaluations=collect(
            "<results>/evaluation/{task}/evaluation.json", task=CONFIG.tasks
        ),
    output:
        page=report(
            "<results>/report.html",
            caption="../report/report.rst",
            category="Report",
        ),
    log:
        "<logs>/report.log",
    benchmark:
        "<benchmarks>/report.tsv"
    localrule: True
    conda:
        "../../envs/shazam.yaml"
    params:
        cfg=job(stage_params.report),
        version=version(stage_versions.stage("report")),
    shell:
        "python -m pipeline report --cfg {params.cfg:q} --root $(dirname {output.page:q})"
        " > {log:q} 2>&1"
