#!/usr/bin/env bash
# Submits a job with curl and JSON, follows its log, and exits with the exit code of the job.
#
#     ./curl.sh 'echo hello; sleep 1; echo world'
#
# Needs curl, jq and python3. Settings, from the environment:
#
#     HODEI_SERVER           URL of the HTTP port; else that of the server of the data directory
#     HODEI_API_TOKEN        the token, or
#     HODEI_API_TOKEN_FILE   a file that holds it, or
#     HODEI_DATA_DIR         the data directory of a server on this machine, which has it in api-token
set -euo pipefail

main() {
  local script=${1:-'echo hello from $HOSTNAME'} definition job_id job state
  find_server

  definition=$(jq -n --arg script "$script" '{name: "curl example", command: {script: {content: $script}}}')
  job_id=$(call JobService/QueueJob "{\"definition\": $definition}" | jq -r .jobId)
  echo "job $job_id" >&2

  follow_log "$job_id"

  # The log is complete when its attempt is; the job may take a moment longer.
  while true; do
    job=$(call JobService/GetJob "{\"jobId\": \"$job_id\"}" | jq .job)
    state=$(jq -r .state <<<"$job")
    case $state in
      *_SUCCEEDED) break ;;
      *_FAILED | *_CANCELLED | *_TIMED_OUT) break ;;
    esac
    sleep 0.2
  done
  echo "$state $(jq -r '.message // ""' <<<"$job")" >&2
  [[ $state == *_SUCCEEDED ]] || exit "$(jq -r 'if (.exitCode // 0) == 0 then 1 else .exitCode end' <<<"$job")"
}

find_server() {
  local data=${HODEI_DATA_DIR:-}
  if [[ -z $data && $EUID -eq 0 ]]; then data=/var/lib/hodei; fi
  data=${data:-${XDG_DATA_HOME:-$HOME/.local/share}/hodei}
  url=${HODEI_SERVER:-}
  if [[ -z $url ]]; then url=$(jq -r .url "$data/server.json"); fi
  token=${HODEI_API_TOKEN:-}
  if [[ -z $token ]]; then token=$(<"${HODEI_API_TOKEN_FILE:-$data/api-token}"); fi
}

# The token goes in by a file descriptor: every user of the machine can see the arguments of curl.
curl_with_token() {
  curl --silent --show-error --config <(printf 'header = "authorization: Bearer %s"\n' "$token") "$@"
}

# A unary call is a POST of JSON. An error comes as {"code": …, "message": …}.
call() {
  local answer
  if ! answer=$(curl_with_token --fail-with-body -H 'content-type: application/json' -d "$2" "$url/hodei.v1.$1"); then
    jq -r '"\(.code): \(.message)"' <<<"$answer" >&2
    exit 1
  fi
  echo "$answer"
}

# In a Connect stream each message, also that of the request, stands in an envelope: a byte of flags
# (2: this is the end, and may hold an error), four bytes of length, then JSON.
follow_log() {
  local request="{\"jobId\": \"$1\", \"follow\": true}"
  {
    printf "\\x00\\x$(printf '%02x' $((${#request} >> 24 & 255)))\\x$(printf '%02x' $((${#request} >> 16 & 255)))"
    printf "\\x$(printf '%02x' $((${#request} >> 8 & 255)))\\x$(printf '%02x' $((${#request} & 255)))%s" "$request"
  } | curl_with_token --no-buffer -H 'content-type: application/connect+json' --data-binary @- \
    "$url/hodei.v1.LogService/ReadLog" | python3 -c "$decode"
}

decode=$(cat <<'PYTHON'
import base64, json, sys

source = sys.stdin.buffer
while head := source.read(5):
    if head[0] > 3:
        sys.exit("not a Connect stream: " + (head + source.read()).decode(errors="replace"))
    message = json.loads(source.read(int.from_bytes(head[1:], "big")))
    if head[0] & 2:
        error = message.get("error")
        sys.exit(f"{error['code']}: {error.get('message', '')}" if error else 0)
    for entry in message.get("entries", []):
        out = sys.stdout if entry["stream"] == "LOG_STREAM_STDOUT" else sys.stderr
        out.buffer.write(base64.b64decode(entry.get("data", "")))
        out.flush()
sys.exit("the stream broke off")
PYTHON
)

main "$@"
