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
  Go on after anything, or start if there is nothing to go on with (for cron):
    rowmill run reviews.jsonl -o out.jsonl -m my-model --id-field id -p '…' --resume
  Work at night only, and print nothing that needs no person:
    rowmill run reviews.jsonl -o out.jsonl … --resume --quiet --deadline 06:00
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
  rowmill merge --work-dir job1 -o - | jq .result";

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
