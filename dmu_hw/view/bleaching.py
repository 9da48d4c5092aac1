"""How the dye faded, in the report."""

from __future__ import annotations

from typing import Any

from dmu_hw.view.amounts import digits
from dmu_hw.view.page import Section, pairs, paragraph


def bleaching_section(facts: dict[str, Any] | None) -> Section:
    """From the facts of the manifest."""
    if facts is None:
        return Section("bleaching", "Bleaching", (paragraph("The references gave too little light to tell."),))
    dose = facts["dose_to_1_e_mj_cm2"]
    error = facts["standard_error"]
    rows = [
        ("dose after which 1/e is left", "none that the run can tell" if dose is None else f"{digits(dose)} mJ/cm²"),
        ("loss", f"{digits(100 * facts['loss_per_mj_cm2'])} % per mJ/cm²"),
        ("standard error", "unknown" if error is None else f"{digits(100 * error)} % per mJ/cm²"),
        ("left at the end, in the field with most light", f"{100 * facts['left']:.1f} %"),
        ("reference frames", f"{facts['references']:,}"),
    ]
    told = (
        "One exponential through the mean light of the reference frames of all fields, over the dose at the places "
        "that the pattern of the references lights."
    )
    return Section("bleaching", "Bleaching", (pairs(rows), paragraph(told, class_="note")))
