"""What a run with `-o DIR` remembers in `DIR/.phi4mm`, so that the same command again does only what is left to do.

    journal.jsonl             what happened to which input: lines that are only ever added
    journal-3-of-8.jsonl      the same of a shard, which has its own; all of them are read, the latest line counts
    lock, lock-3-of-8         held by the run that writes the journal beside it (`lock`); shards share the first
    requests/HASH.jsonl       the model's answers for an input that is in hand (`answers`)
    requests.jsonl            those for short inputs; requests-3-of-8.jsonl of a shard
    results/HASH.json         the last result of an input as it was before it was written to its outputs (`results`)
    results.jsonl             short results; results-3-of-8.jsonl of a shard, until a run of all inputs takes them in

A line is a JSON object in UTF-8, handed to the system in one piece. It outlives the program, killed or not; nothing is
synced to the disk, so that a power cut may take the last lines: what they told of is done again. A line that is torn,
by a full disk or by such an end, is passed over by its reader, and the next one begins on a line of its own. Each has
`event` and `at` (seconds since 1970), and as `event` says:

    run      a run begins to do something: layout, version, pid, host, shard, command, family, task, deciding, engine,
             form, writing
    planned  how many `inputs` it is for, how many of them are left `todo`, their `length` and its `unit` if known
    started  an input is opened: family, name, task, stamp, attempt, length
    done     its outputs are written: family, name, task, stamp, attempt, form, outputs (within DIR), marks (size and
             hash of each, as it was written), kept (from a result that was there before this run), seconds (spent on
             it), coverage, calls, replayed (how many of them an earlier run had answered), warnings (how many of each
             code, but for those healed), model
    failed   there are none: family, name, task, stamp if it could be read, attempt, error (type, message, advice),
             and outputs and marks where some were written
    end      the run ends by itself: code, which is its exit code

`family` is the command with its tag ("transcribe", "translate fr"), `name` the input's path within the folder that was
searched: together they are an input's key, and the latest of its lines is its state. `task` is a hash of what decides
a result (`deciding`, `engine`), `form` of what only shapes its writing. `stamp` is size, time (of the last change, in
nanoseconds) and hash (of the size and both ends) of the input.
"""

from phi4mm_cli.journal.book import Journal
from phi4mm_cli.journal.no_journal import NoJournal
from phi4mm_cli.journal.records import FOLDER, Key, Order, Stamp
from phi4mm_cli.journal.states import State, States

__all__ = ["FOLDER", "Journal", "Key", "NoJournal", "Order", "Stamp", "State", "States"]
