//! What `--help` says below the options.

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  every row has an answer, outputs published     70  state damaged beyond automatic repair
  1  a bug                                          73  cannot create work dir or output, or it exists
  2  usage                                          74  I/O error: disk full, EIO, failed fsync
  3  outputs published, some rows failed            75  another process holds the work dir
  4  stopped at your limit (--max-errors,           77  credentials refused, or quota exhausted
     --max-cost, --deadline)
  65 input data invalid                             78  the command does not match the manifest
  66 input missing or unreadable                    130 SIGINT, 143 SIGTERM: drained
  69 endpoint unavailable longer than --max-outage, or a server that rowmill starts does not come
Every non-zero exit ends with one line: what happened, what is safe, the command that goes on.";

pub(super) const RUN_EXAMPLES: &str = "\
Examples:
  Try a pipeline without a model (the answer is the prompt):
    rowmill run reviews.jsonl -o out.jsonl -m passthrough -p 'Classify: {{text}}'
  Ask a small model on this machine, fetched once (no key, no server; it only shows the way):
    rowmill run reviews.jsonl -o out.jsonl -m local -p 'Which language is this? {{text}}'
  Have a server started for as long as there are calls to make:
    rowmill run reviews.jsonl -o out.jsonl -m Qwen/Qwen3-0.6B --serve vllm -p 'Classify: {{text}}'
  Ask a model behind any server that speaks OpenAI Chat Completions:
    rowmill run reviews.jsonl -o out.jsonl -m my-model --base-url http://127.0.0.1:8000/v1 \\
      --id-field id -p 'Positive or negative? {{text}}' --temperature 0 --max-tokens 5
  Get JSON that fits a schema, not text; what does not fit is asked again with the reason:
    rowmill run reviews.jsonl -o out.jsonl -m my-model -p 'Judge: {{text}}' \\
      --schema 'label:pos|neg, confidence:number, topics:string[]'
  Send a picture with each row: the field holds a path beside the input, a URL, or a data URI:
    rowmill run photos.jsonl -o out.jsonl -m my-model -p 'What is this?' --attachment-field photo
  Run a request file of OpenAI's Batch API, vLLM or FastDeploy as it is (docs/dialects.md):
    rowmill run batch.jsonl -o out.jsonl --base-url http://127.0.0.1:8000/v1
  The same, all lines by one model; lines that cannot be sent fail without a call:
    rowmill run batch.jsonl -o out.jsonl -m openai.gpt-5-mini --skip-bad-lines
  Answer prompts as dria batch does, on standard output:
    rowmill run prompts.jsonl -m my-model
  Go on after anything, or start if there is nothing to go on with (for cron):
    rowmill run reviews.jsonl -o out.jsonl -m my-model --id-field id -p '…' --resume
  Work at night only, and print nothing that needs no person:
    rowmill run reviews.jsonl -o out.jsonl … --resume --quiet --deadline 06:00
  Fetch the rows, and upload the answers (docs/transfer.md); quote the URLs:
    rowmill run 'https://…/reviews.jsonl?…' -o 'https://…/out.jsonl?…' -m my-model -p '…' --resume
  Spend five dollars at most, whatever happens and however often it is started:
    rowmill run reviews.jsonl -o out.jsonl -m openai.gpt-4o-mini -p '…' --resume --max-cost 5 \\
      --work-dir reviews-job
  See the first requests without sending any, and what all will cost:
    rowmill run reviews.jsonl -o out.jsonl -m my-model -p '…' --dry-run

  Ask a provider by name, with parameters:
    rowmill run reviews.jsonl -o out.jsonl -m 'anthropic.claude-haiku-4-5?max_tokens=5&temperature=0' …

  Ask two models three times each about every row: six envelopes a row, with `model` and `repeat`:
    rowmill run reviews.jsonl -o out.jsonl -m openai.gpt-5-mini -m lab.my-model --repeat 3 …

  Ask an endpoint of rowmill.toml by its name, with its key, parameters and limits:
    rowmill run reviews.jsonl -o out.jsonl -m lab.my-model …
  Spread rows over a pool of rowmill.toml, or over whatever its endpoints offer (docs/pools.md):
    rowmill run reviews.jsonl -o out.jsonl -m my-pool …
    rowmill run reviews.jsonl -o out.jsonl -m auto …

The key is read from --api-key-file, the provider's variable (OPENAI_API_KEY, ANTHROPIC_API_KEY, …) or where
the config file says. docs/models.md has all providers and parameters, docs/config.md the config file.";

pub(super) const PLAN_EXAMPLES: &str = "\
Examples:
  rowmill plan rows.jsonl --work-dir job1 -m my-model --id-field id --template prompt.txt
  rowmill work --work-dir job1
  rowmill merge --work-dir job1 -o out.jsonl";

pub(super) const WORK_EXAMPLES: &str = "\
Examples:
  rowmill work --work-dir job1
  rowmill work --work-dir job1 --shard 0-9 -c 128
  rowmill work --work-dir job1 --retry-failed";

pub(super) const MERGE_EXAMPLES: &str = "\
Examples:
  rowmill merge --work-dir job1 -o out.jsonl --error-output errors.jsonl
  rowmill merge --work-dir job1 -o - | jq .result
  rowmill merge --work-dir job1 -o out.jsonl --output-format openai   # as OpenAI's Batch API has it
  rowmill merge --work-dir job1 -o out.jsonl --partial                # what is done of a run that ended early
  rowmill merge --work-dir job1 -o 'https://…/out.jsonl?…'";

pub(super) const STATUS_EXAMPLES: &str = "\
Examples:
  rowmill status --work-dir out.jsonl.rowmill
  rowmill status --work-dir job1 --json | jq .left
  rowmill status --work-dir job1 --json | jq .last_run.code";

pub(super) const CHECK_EXAMPLES: &str = "\
Examples:
  rowmill check --work-dir job1
  rowmill check --work-dir job1 --repair

Exits with 70 when records are lost or something cannot be repaired; what a crash leaves behind and
indexes that are rebuilt anyway are reported, and are no failure.";

/// What is not quite the same for rows that pass by.
pub(super) const FILTER_MAX_COST: &str =
    "Stop with code 4 before the calls of this process may have cost more: dollars, as 12.50";
pub(super) const FILTER_ATTACHMENTS: &str = "The field that names an image, sound or PDF to send with the prompt: a path (relative to the current \
     directory), an http(s) URL, a data URI, or a list of these. Rows without one are asked as text";

pub(super) const FILTER_EXAMPLES: &str = "\
Examples:
  Between other filters; lines come out as answers come, with the ids of their rows:
    jq -c '{id, text}' reviews.json | rowmill filter -m my-model --id-field id -p 'Judge: {{text}}' | jq .result
  In the order of the rows, with JSON that fits a schema, and with the row in each line:
    … | rowmill filter -m my-model -p 'Judge: {{text}}' --schema 'label:pos|neg' --ordered --include-input
  As fast as lines are written to a file:
    tail -f events.jsonl | rowmill filter -m my-model -p 'Is this urgent? {{text}}'
  In several processes, whose calls and limits are each their own (docs/filter.md):
    parallel --pipe -j4 rowmill filter -m my-model -c 16 --id-field id -p '…' < reviews.jsonl
  Requests, as OpenAI's Batch API has them (or dria batch: prompts; or Dria's Batch API):
    … | rowmill filter --base-url http://localhost:8000/v1 | jq -r '.response.body.choices[0].message.content'

Lines out are the envelopes of rowmill run: {\"id\":…,\"row_number\":…,\"ok\":…,\"result\":…,\"error\":…}. Where lines in
are requests (the first tells, or --dialect) they are those of its dialect; --output-format says another.
There is no work directory: what is in flight when the process is killed is lost, and paid for. For a file of
any size use rowmill run, which goes on where it was.

Exit codes: 0 every row has an answer, or whoever read the lines has gone (as with head -1); 3 some rows
failed; 4 --max-errors or --max-cost; 69 endpoint unavailable longer than --max-outage; 74 lines could not be
written; 77 credentials or quota; 78 no such model; 130 SIGINT, 143 SIGTERM. The last line on standard error
says how many rows that were read have no line out.";

pub(super) const ESTIMATE_EXAMPLES: &str = "\
Examples:
  rowmill estimate reviews.jsonl -m openai.gpt-4o-mini -p 'Classify: {{text}}' --expect-output 5
  rowmill estimate reviews.jsonl -m openai.gpt-4o-mini -p '…' --limit 1000 --json | jq .cost_usd.high

Takes the arguments of run for the input, the prompt and the model. It is of the whole job: nothing is
taken off for rows that have answers already. Prices are those of a table that comes with rowmill, or of
rowmill.toml.";

pub(super) const MODELS_EXAMPLES: &str = "\
Examples:
  rowmill models
  rowmill models ollama openrouter
  rowmill models --base-url http://127.0.0.1:8000/v1 --json | jq -r .model

Endpoints that fail are told on standard error. The code is 0 if any answered; 77 if all refused the
key or want one; else 69.";

pub(super) const FILES_EXAMPLES: &str = "\
The file tools read JSON Lines in any dialect (docs/dialects.md): rows, openai, prompts, dria. They
call no model, hold a few megabytes whatever the size of a file (but for merge and diff: up to 110
and 160 bytes a line), and write files whole or not at all.";

pub(super) const VALIDATE_EXAMPLES: &str = "\
Examples:
  rowmill files validate batch.jsonl
  rowmill files validate batch.jsonl --for openai
  rowmill files validate batches/ --for vllm --limit all
  rowmill files validate batch.jsonl --json | jq '.problems[] | .line'

Exits with 0 if all files are fine (warnings are), else with 65. The ids are sorted in the temporary
directory (TMPDIR), 64 bytes a line.";

pub(super) const STATS_EXAMPLES: &str = "\
Examples:
  rowmill files stats batch.jsonl
  rowmill files stats batches/ --json | jq -s 'map(.estimated_input_tokens) | add'

Tokens are estimated: a quarter of a request's bytes, data URIs left out.";

pub(super) const SAMPLE_EXAMPLES: &str = "\
Examples:
  rowmill files sample batch.jsonl -n 100 -o try.jsonl
  zcat big.jsonl.gz | rowmill files sample - -n 1000 --seed 7 > try.jsonl

The lines come in the order of the file. The same seed takes the same lines.";

pub(super) const SPLIT_EXAMPLES: &str = "\
Examples:
  Parts that OpenAI's Batch API takes:
    rowmill files split batch.jsonl -o parts
    rowmill files split batch.jsonl -o parts --by-model --lines 50000 --bytes 200MB
  Small ones:
    rowmill files split batch.jsonl --lines 1000";

pub(super) const FILES_MERGE_EXAMPLES: &str = "\
Examples:
  rowmill files merge parts/ -o all.jsonl
  rowmill files merge output.jsonl errors.jsonl -o results.jsonl --on-duplicate first";

pub(super) const DIFF_EXAMPLES: &str = "\
Examples:
  rowmill files diff monday.jsonl tuesday.jsonl
  rowmill files diff before.jsonl after.jsonl --show --limit 5
  rowmill files diff a.jsonl b.jsonl --exit-code --json | jq .different

Answers are compared by what was said, not by ids, times and token counts. Envelopes, OpenAI's, vLLM's
and Dria's results can be compared with each other. Exits with 0 whatever is found, unless
--exit-code is given.";

pub(super) const PREPARE_EXAMPLES: &str = "\
Examples:
  rowmill files prepare batch.jsonl -m my-model --temperature 0 -o ready.jsonl
  rowmill files prepare batches/ --in-place --set body.seed=7 --set body.user=me
  rowmill files prepare batch.jsonl --remove 'test-*' --encode-images > ready.jsonl

What is not changed keeps its bytes. A file that would not change is not written again.";
