"""Commands byte by byte, against what TI's programmer's guide gives as examples."""

from __future__ import annotations

import struct

import pytest

from dmu_hw.drivers.dlpc900 import commands
from dmu_hw.drivers.dlpc900.commands import Entry
from dmu_hw.drivers.dlpc900.packets import (
    MOST_DATA_BYTES,
    Code,
    Command,
    Head,
    head_of,
    report_count,
    reports_of,
)


def said(command: Command) -> str:
    return f"{command.code:04X} {command.data.hex(' ').upper()}".strip()


def test_the_example_of_pattern_on_the_fly() -> None:
    """DLPU018, revisions I and J, the example of pattern on-the-fly mode. Its options are 11 and 23 where these are 10:
    its second pattern is green and of 2 bits, and bit 0 clears a pattern that a trigger began, which none does here."""
    assert said(commands.set_mode(commands.ON_THE_FLY)) == "1A1B 03"
    assert said(commands.define(0, Entry(0, 0, exposure_us=200))) == "1A34 00 00 C8 00 00 10 00 00 00 00 00 00"
    assert said(commands.define(1, Entry(0, 1, exposure_us=400))) == "1A34 01 00 90 01 00 10 00 00 00 00 00 08"
    assert said(commands.set_size(2, 0)) == "1A31 02 00 00 00 00 00"
    begin, *pieces = commands.put_image(0, bytes(6009), (1080, 1920))
    assert said(begin) == "1A2A 00 00 A9 17 00 00"
    assert [piece.data[:2].hex().upper() for piece in pieces] == ["F801"] * 12 + ["0900"]
    assert {piece.code for piece in pieces} == {Code.IMAGE_DATA}
    assert said(commands.start()) == "1A24 02"


def test_the_examples_of_reading_and_writing() -> None:
    """DLPU018, sections 1.2.2 and 1.2.3, but for the command, which sets a colour, and for the flag that asks for a
    reply to what is no question: ours always does."""
    (read,) = reports_of(Command(Code.HARDWARE_STATUS, reads=True), 0x11)
    assert read[:7].hex(" ").upper() == "00 C0 11 02 00 0A 1A"
    (write,) = reports_of(Command(Code.MODE, bytes.fromhex("FF01FF01FF01")), 0x12)
    assert write[:13].hex(" ").upper() == "00 40 12 08 00 1B 1A FF 01 FF 01 FF 01"
    assert len(read) == len(write) == 65
    assert not any(read[7:] + write[13:])
    assert head_of(bytes.fromhex("C0110600FF01FF01FF01")) == Head(0xC0, 0x11, 6)


def test_long_commands_go_on_in_reports_without_a_head() -> None:
    command = Command(Code.IMAGE_DATA, bytes(range(253)) * 2)
    reports = reports_of(command, 7)
    assert len(reports) == 8 == report_count(command) - 1
    whole = b"".join(report[1:] for report in reports)
    assert whole == struct.pack("<BBHH", 0x40, 7, 508, 0x1A2B) + command.data


def test_a_command_that_the_controller_has_no_room_for() -> None:
    assert MOST_DATA_BYTES == 506
    with pytest.raises(ValueError, match="at most 506 bytes of data, given 507"):
        Command(Code.IMAGE_DATA, bytes(507))


@pytest.mark.parametrize(
    ("report", "answers"),
    [
        ("C0110600", True),
        ("E0110000", True),
        ("C0120600", False),
        ("40110600", False),
        ("C011FFFF", False),
    ],
)
def test_a_reply_is_known_by_flags_sequence_and_length(report: str, answers: bool) -> None:
    head = head_of(bytes.fromhex(report))
    assert head is not None
    assert head.answers(Command(Code.VERSION, reads=True), 0x11) is answers
    assert head.failed is (report[0] == "E")


def test_the_head_of_an_image() -> None:
    """DLPU018, section 2.4.2."""
    told = commands.head((1080, 1920), 0x01020304)
    assert told.hex(" ").upper() == (
        "53 70 6C 64 80 07 38 04 04 03 02 01 FF FF FF FF FF FF FF FF 00 00 00 00 00 02 01" + " 00" * 21
    )


def test_entries_orders_and_triggers() -> None:
    waits = Entry(17, 23, exposure_us=0x030201, dark_us=0x060504, waits=True, silent=True)
    assert said(commands.define(399, waits)) == "1A34 8F 01 01 02 03 90 04 05 06 01 11 B8"
    assert said(commands.set_order([3, 0, 259], 3)) == "1A32 03 00 03 00 00 00 03 00 00 00 03 01"
    assert len(commands.set_order(range(commands.MOST_IN_ORDER), 0).data) == MOST_DATA_BYTES
    assert said(commands.set_trigger_out(1, 20, inverted=False)) == "1A1D 00 14 00 00 00"
    assert said(commands.set_trigger_out(2, -20, inverted=True)) == "1A1E 01 EC FF 00 00"
    assert said(commands.set_trigger_in(105, falling=True)) == "1A35 69 00 01"


@pytest.mark.parametrize(
    ("status", "faults"),
    [
        (0b0000_0001, []),
        (0b0001_0001, []),
        (0b0000_0000, ["it did not start up properly"]),
        (0b1100_0001, ["the sequencer aborted", "the sequencer found an error"]),
        (0b0000_0011, ["controller and DMD, or the firmware, do not fit"]),
    ],
)
def test_the_hardware_status(status: int, faults: list[str]) -> None:
    assert commands.faults_of(status) == faults
