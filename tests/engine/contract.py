#!/usr/bin/env python3
"""Tests everything that nanokimi relies on in kimi-code: one long play, row by row, with one or two versions.

    contract.py --node NODE --out FOLDER PACKAGE [CANDIDATE]

PACKAGE is the folder of an installed kimi-code. Each row is checked twice. First, some things must hold in
any case (`must` in rows.py); if one does not hold, it is printed as a finding. Second, the candidate must
say, ask and store the same as the first version. Ids, times, ports and folders are replaced before that, and
only the new part of each request to the model is compared. Afterwards everything that was seen is in FOLDER,
in one file for each version. The exit code is 1 if there is a finding or a difference.
"""

import argparse
import difflib
import os
import sys
import tempfile
import time
from pathlib import Path

from play import Play, tidied
from rows import ROWS

# How many lines of a row's differences are printed, and how many characters of each line.
SHOWN_LINES = 6
SHOWN_CHARS = 230


def perform(node, package, place):
    play = Play(node, package, place)
    for row, part in ROWS.items():
        play.row, play.rows[row] = row, []
        try:
            part(play)
        except Exception as error:
            play.findings.append(f"{row}: it could not be played to its end: {type(error).__name__}: {error}")
        play.rows[row] = tidied(play, play.rows[row])
    return play


def difference(before, after):
    """The lines that differ, each with its sign. A long pair is shown from where it begins to differ."""
    shown = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        gone, come = before[a:b], after[c:d]
        for n in range(max(len(gone), len(come))):
            pair = gone[n : n + 1], come[n : n + 1]
            start = 0
            if pair[0] and pair[1]:
                start = max(0, len(os.path.commonprefix([pair[0][0], pair[1][0]])) - 60)
            for sign, lines in zip("-+", pair):
                for line in lines:
                    beginning = f"{line[:24]} … " if start > 24 else line[:start]
                    rest = line[start : start + SHOWN_CHARS]
                    end = " …" if len(line) > start + SHOWN_CHARS else ""
                    shown.append(f"{sign} {beginning}{rest}{end}")
    return shown


def main():
    parser = argparse.ArgumentParser(description="Tries what nanokimi relies on of kimi-code.")
    parser.add_argument("--node", required=True, help="Node's program")
    parser.add_argument("--out", required=True, help="where what was seen is written")
    parser.add_argument(
        "packages", nargs="+", metavar="PACKAGE", help="kimi-code's folder; one or two of them"
    )
    asked = parser.parse_args()
    os.makedirs(asked.out, exist_ok=True)
    plays = []
    with tempfile.TemporaryDirectory(prefix="contract-") as place:
        for package, side in zip(asked.packages[:2], ("pinned", "candidate")):
            begun = time.monotonic()
            play = perform(os.path.realpath(asked.node), package, f"{place}/container")
            play.side = (
                f"{side}, {play.version}{' made lighter' if Path(package, 'dist/light.mjs').exists() else ''}"
            )
            plays.append(play)
            with open(f"{asked.out}/{side}.txt", "w") as file:
                for row, lines in play.rows.items():
                    file.write(f"== {row}\n" + "".join(f"{line}\n" for line in lines))
            lines = sum(map(len, play.rows.values()))
            print(f"{play.side}: {lines} lines in {time.monotonic() - begun:.0f} s", file=sys.stderr)
    found = False
    width = max(map(len, ROWS))
    for row in ROWS:
        lines = difference(*(play.rows[row] for play in plays)) if len(plays) == 2 else []
        findings = [
            f"{play.side}: {finding.removeprefix(row + ': ')}"
            for play in plays
            for finding in dict.fromkeys(play.findings)
            if finding.startswith(row + ": ")
        ]
        verdict = (
            f"DIFFERS ({len(lines)} lines)" if lines else "the same" if len(plays) == 2 else "as it must be"
        )
        if findings:
            verdict = "FOUND" + (f", {verdict}" if len(plays) == 2 else "")
        found = found or bool(lines or findings)
        print(f"{row:<{width}}  {verdict}")
        for line in findings + lines[:SHOWN_LINES]:
            print(f"    {line}")
        if len(lines) > SHOWN_LINES:
            print(f"    … and {len(lines) - SHOWN_LINES} more")
    if found:
        print(f"\nAll that was seen lies in {asked.out}", file=sys.stderr)
    sys.exit(found)


if __name__ == "__main__":
    main()
