// The machine and the program itself: cleanup, doctor, completion, version.
#include <ostream>
#include <sstream>

#include "cli/commands.h"
#include "cli/output.h"

namespace bottle::cli {

int cleanup(Context& c, bool dry_run) {
  auto backend = open_backend(c);
  if (!backend) return fail(c, backend.status());
  auto report = (*backend)->cleanup(dry_run);
  if (!report) return fail(c, report.status());
  for (const auto& what : report->removed) c.out << (dry_run ? "would remove " : "removed ") << what << "\n";
  for (const auto& what : report->left) c.out << "left: " << what << "\n";
  if (report->removed.empty() && report->left.empty()) c.err << "nothing to clean up\n";
  return kOk;
}

int doctor(Context& c, const std::string& output) {
  BackendKind kind = BackendKind::kDocker;
  auto named = named_backend(c);
  if (!named) return fail(c, named.status());
  if (*named) kind = **named;
  else (void)open_backend(c, &kind);  // a cluster instead, when there is no engine here
  const std::vector<Check> checks = (kind == BackendKind::kKubernetes ? c.kubernetes : c.docker).doctor(c.backend);
  bool failed = false;
  Json list = Json::array();
  for (const auto& k : checks) {
    failed |= k.status == "fail";
    if (output == "json") {
      list.push_back({{"name", k.name}, {"status", k.status}, {"message", k.message}, {"fix", k.fix}});
      continue;
    }
    const Color color = k.status == "ok" ? Color::kGreen : k.status == "warn" ? Color::kYellow : Color::kRed;
    std::string status = k.status, name = k.name;
    status.resize(5, ' ');
    if (name.size() < 12) name.resize(12, ' ');
    c.out << paint(c.color_out, color, status) << " " << name << " " << printable(k.message) << "\n";
    if (!k.fix.empty()) c.out << "      to do: " << printable(k.fix) << "\n";
  }
  if (output == "json") c.out << to_output({{"ok", !failed}, {"checks", list}}, "json");
  return failed ? kFailed : kOk;
}

int version(Context& c) {
  c.out << "bottle " BOTTLE_VERSION "\nAPI    bot-bottle.dev/v1alpha1\n";
  return kOk;
}

namespace {

constexpr char kCommands[] = "up ls get exec attach logs audit explain render down cleanup doctor completion version";

constexpr char kBash[] = R"sh(# bash completion for bottle; use: source <(bottle completion bash)
_bottle() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd='' at=0 i where=()
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      --backend|--kubeconfig|--context|-n|--namespace|--host|--state-dir) where+=("${COMP_WORDS[i]}" "${COMP_WORDS[i+1]}"); ((i++)) ;;
      -*) ;;
      *) [ -z "$cmd" ] && cmd=${COMP_WORDS[i]} && at=$i ;;
    esac
  done
  case $prev in
    --backend) COMPREPLY=($(compgen -W "docker kubernetes auto" -- "$cur")); return ;;
    --kubeconfig|--state-dir) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    --context|-n|--namespace|--host) return ;;
  esac
  if [ -z "$cmd" ]; then COMPREPLY=($(compgen -W "@COMMANDS@ --backend --kubeconfig --context --namespace --host --state-dir --help --version" -- "$cur")); return; fi
  case $cmd:$prev in
    up:-f|render:-f|down:-f|explain:-f|*:--upstream-ca|*:--file) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    ls:-o) COMPREPLY=($(compgen -W "table name json yaml" -- "$cur")); return ;;
    get:-o) COMPREPLY=($(compgen -W "yaml json" -- "$cur")); return ;;
    *:-o) COMPREPLY=($(compgen -W "text json" -- "$cur")); return ;;
  esac
  case $cmd in
    up|render) COMPREPLY=($(compgen -f -- "$cur")) ;;
    completion) COMPREPLY=($(compgen -W "bash zsh fish" -- "$cur")) ;;
    get|exec|attach|audit|explain|down|logs)
      local words; words=$(bottle "${where[@]}" ls -o name 2>/dev/null)
      [ "$cmd" = logs ] && [ "$COMP_CWORD" -gt $((at + 1)) ] && words="agent egress guard"
      COMPREPLY=($(compgen -W "$words" -- "$cur")) ;;
  esac
}
complete -o filenames -F _bottle bottle
)sh";

constexpr char kZsh[] = R"sh(#compdef bottle
# zsh completion for bottle; use: bottle completion zsh > "${fpath[1]}/_bottle"
_bottle() {
  if (( CURRENT == 2 )); then compadd -- @COMMANDS@ --backend --kubeconfig --context --namespace --host --state-dir --help --version; return; fi
  case ${words[CURRENT-1]} in
    --backend) compadd -- docker kubernetes auto; return ;;
    --kubeconfig|--state-dir) _files; return ;;
    --context|-n|--namespace|--host) return ;;
    -f|--file|--upstream-ca) if [[ ${words[2]} != (logs|audit) ]]; then _files; return; fi ;;
    -o|--output) compadd -- table name text json yaml; return ;;
  esac
  case ${words[2]} in
    up|render) _files ;;
    completion) compadd -- bash zsh fish ;;
    logs) if (( CURRENT > 3 )); then compadd -- agent egress guard; else compadd -- ${(f)"$(bottle ls -o name 2>/dev/null)"}; fi ;;
    get|exec|attach|audit|explain|down) compadd -- ${(f)"$(bottle ls -o name 2>/dev/null)"} ;;
  esac
}
if [ "$funcstack[1]" = _bottle ]; then _bottle "$@"; else compdef _bottle bottle; fi
)sh";

constexpr char kFish[] = R"sh(# fish completion for bottle; use: bottle completion fish > ~/.config/fish/completions/bottle.fish
complete -c bottle -f
complete -c bottle -n __fish_use_subcommand -a '@COMMANDS@'
complete -c bottle -l backend -xa 'docker kubernetes auto'
complete -c bottle -l kubeconfig -rF
complete -c bottle -l context -x
complete -c bottle -s n -l namespace -x
complete -c bottle -n '__fish_seen_subcommand_from ls' -s A -l all-namespaces
complete -c bottle -n '__fish_seen_subcommand_from get exec attach logs audit explain down' -a '(bottle ls -o name 2>/dev/null)'
complete -c bottle -n '__fish_seen_subcommand_from logs' -a 'agent egress guard'
complete -c bottle -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'
complete -c bottle -n '__fish_seen_subcommand_from up render down explain' -s f -l file -rF
complete -c bottle -n '__fish_seen_subcommand_from up render' -l upstream-ca -rF
)sh";

}  // namespace

int completion(Context& c, const std::string& shell) {
  std::string script = shell == "bash" ? kBash : shell == "zsh" ? kZsh : kFish;
  constexpr char kMark[] = "@COMMANDS@";
  for (size_t at; (at = script.find(kMark)) != std::string::npos;) script.replace(at, sizeof kMark - 1, kCommands);
  c.out << script;
  return kOk;
}

// Source: kubectl's plugin completion (kubernetes/kubernetes pull 105867): one candidate a line, then ":<directive>" as cobra has them.
int complete(Context& c, const std::vector<std::string>& words) {
  constexpr char kFiles[] = ":0\n", kNoFiles[] = ":4\n";
  const std::string last = words.empty() ? "" : words.back();
  std::string command, before;
  size_t behind = 0;  // words behind the command that are no options
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    before = words[i];
    std::string* to = before == "-n" || before == "--namespace" ? &c.backend.namespace_
                      : before == "--context"                   ? &c.backend.context
                      : before == "--kubeconfig"                ? &c.backend.kubeconfig
                                                                : nullptr;
    if (to && i + 2 < words.size()) {
      *to = words[++i];
      before.clear();
    } else if (before[0] != '-') {
      if (command.empty()) command = before;
      else ++behind;
    }
  }
  const auto offer = [&](const std::string& word) {
    if (word.rfind(last, 0) == 0) c.out << word << "\n";
  };
  const auto offer_all = [&](const char* list) {
    std::istringstream in(list);
    for (std::string word; in >> word;) offer(word);
  };
  if (before == "-f" || before == "--file" || before == "--kubeconfig" || ((command == "up" || command == "render") && before == command)) {
    c.out << kFiles;
    return kOk;
  }
  if (before == "-o" || before == "--output") offer_all(command == "ls" ? "table name json yaml" : command == "get" ? "yaml json" : "text json");
  else if (command.empty()) offer_all(kCommands);
  else if (command == "completion") offer_all("bash zsh fish");
  else if (command == "logs" && behind == 1) offer_all("agent egress guard");
  else if (std::string(" get exec attach logs audit explain down ").find(" " + command + " ") != std::string::npos && (behind == 0 || command == "down"))
    if (auto backend = c.kubernetes.open(c.backend); backend)
      if (auto list = (*backend)->list(); list)
        for (const auto& o : *list) offer(o.name);
  c.out << kNoFiles;
  return kOk;
}

}  // namespace bottle::cli
