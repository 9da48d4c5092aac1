from __future__ import annotations


def write_report(run, plan, facts):
    run.report.write_text("x")
