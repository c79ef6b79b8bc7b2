"""A process that reads damaged files, one after the other.

Requests are lines of JSON: `{"target": ..., "seed": ...}`, or `{"make": true}`
first, which writes the sound files. Answers are lines of JSON too.
"""

import json
import os
import sys
import tempfile
import traceback
import warnings


def main():
    folder = sys.argv[1]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints, prints elsewhere
    warnings.simplefilter("ignore")
    from tests.fuzz import targets

    ready = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request.get("make"):
                targets.make_files(folder)
                answer = "made", ""
            else:
                if ready is None:
                    ready = targets.Targets(folder, tempfile.mkdtemp())
                if request.get("ready"):
                    answer = "ready", ""
                else:
                    answer = ready.run(request["target"], request["seed"])
        except BaseException:  # noqa: BLE001
            answer = "escaped", traceback.format_exc()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
