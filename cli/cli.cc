// The command line: options, help with an example for each command, and who is called.
#include "cli/cli.h"

#include <CLI/CLI.hpp>
#include <ostream>
#include <set>
#include <sstream>

#include "cli/commands.h"
#include "cli/output.h"

namespace bottle::cli {
namespace {

// Options whose value is the next word: those of every command, and those of exec.
bool takes_value(const std::string& option) {
  static const std::set<std::string> kOptions = {"--backend", "--host", "--state-dir", "--kubeconfig", "--context", "-n", "--namespace",
                                                 "-u", "--user", "-w", "--workdir", "-e", "--env"};
  return kOptions.count(option) > 0;
}

// `exec NAME cmd -x`: everything from the command on belongs to it. It is cut off here, before the parser can take the
// command's options for its own. As with kubectl, options may stand behind the name too: no command begins with '-'.
std::vector<std::string> cut_exec_command(std::vector<std::string>& args) {
  size_t i = 0;
  const auto skip_options = [&] {
    while (i < args.size() && args[i].size() > 1 && args[i][0] == '-' && args[i] != "--") i += takes_value(args[i]) ? 2 : 1;
  };
  skip_options();
  if (i >= args.size() || args[i] != "exec") return {};
  ++i;
  skip_options();
  if (i >= args.size() || args[i] == "--") return {};
  ++i;
  skip_options();
  if (i >= args.size()) return {};
  const size_t first = args[i] == "--" ? i + 1 : i;
  std::vector<std::string> command(args.begin() + static_cast<std::ptrdiff_t>(first), args.end());
  args.resize(i);
  return command;
}

}  // namespace

int run(Context& c, const std::vector<std::string>& arguments) {
  std::vector<std::string> args = arguments;
  if (auto dir = c.env("BOT_BOTTLE_STATE_DIR")) c.backend.state_dir = *dir;
  if (c.program == "kubectl_complete-bottle") return complete(c, args);
  const std::vector<std::string> command = cut_exec_command(args);

  CLI::App app("bottle runs AI coding agents that reach what their routes list, with credentials they never see, and nothing else.", "bottle");
  app.require_subcommand(1);
  app.fallthrough();  // options of every command may stand behind it
  app.set_version_flag("--version", "bottle " BOTTLE_VERSION);
  app.add_option("--backend", c.backend.choice, "docker, kubernetes or auto (default: BOT_BOTTLE_BACKEND, then auto: docker, or a cluster if there is no engine)")
      ->check(CLI::IsMember(std::set<std::string>{"docker", "kubernetes", "auto"}));
  app.add_option("--kubeconfig", c.backend.kubeconfig, "kubeconfig file; chooses kubernetes (default: KUBECONFIG, in-cluster, ~/.kube/config)");
  app.add_option("--context", c.backend.context, "context of the kubeconfig; chooses kubernetes");
  app.add_option("-n,--namespace", c.backend.namespace_, "namespace of the cluster; chooses kubernetes (default: the context's)");
  app.add_option("--host", c.backend.host, "the container engine: unix:///path or tcp://host:port (default: DOCKER_HOST, then the usual sockets)");
  app.add_option("--state-dir", c.backend.state_dir, "where bottles keep keys and files (default: BOT_BOTTLE_STATE_DIR, then ~/.bot-bottle/state)");
  app.footer(
      "Exit codes: 0 done, 1 failed, 2 bad input, 3 not found, 130 interrupted. NO_COLOR turns colours off.\n"
      "example: bottle up -f examples/hello-bottle.yaml && bottle exec hello -- curl -sS https://api.example.com/\n"
      "example: bottle -n dev up -f examples/hello-bottle.yaml && kubectl bottle -n dev ls");
  int code = kOk;
  const auto add = [&](const char* name, const char* what, const char* example) {
    auto* sub = app.add_subcommand(name, what);
    sub->footer(std::string("example: ") + example);
    return sub;
  };
  const auto format = [](CLI::App* sub, std::string& to, std::set<std::string> allowed) {
    sub->add_option("-o,--output", to, "format")->capture_default_str()->check(CLI::IsMember(std::move(allowed)));
  };

  UpOptions up_o;
  const auto file_options = [&](CLI::App* sub) {
    sub->add_option("-f,--file,file", up_o.file, "Bottle file, YAML or JSON; - is standard input")->required();
    sub->add_option("--upstream-ca", up_o.upstream_cas, "PEM file with roots that egress trusts too (a company proxy); repeatable; Docker only")->take_all()->allow_extra_args(false);
  };
  auto* s = add("up", "Start the bottles of a file, or bring running ones up to date", "bottle up -f bottle.yaml");
  file_options(s);
  s->add_option("--resolver", up_o.resolvers, "DNS server for egress, an IP address; repeatable (default: the host's); Docker only")->take_all()->allow_extra_args(false);
  s->add_flag("--no-pull", up_o.no_pull, "do not pull missing images; Docker only");
  s->callback([&] { code = up(c, up_o); });

  s = add("render", "Print the plan of a file without touching anything; with --backend kubernetes the objects on a cluster, without the Secret's content",
          "bottle render -f bottle.yaml | jq .policyHash");
  file_options(s);
  s->callback([&] { code = render(c, up_o); });

  std::string ls_format = "table", get_format = "yaml", audit_format = "json", doctor_format = "text";
  s = add("ls", "List bottles", "bottle ls -o json; bottle ls -A");
  format(s, ls_format, {"table", "name", "json", "yaml"});
  s->add_flag("-A,--all-namespaces", c.backend.all_namespaces, "of every namespace; chooses kubernetes");
  s->callback([&] { code = ls(c, ls_format); });

  std::string name;
  const auto name_option = [&](CLI::App* sub) { sub->add_option("name", name, "the bottle's name")->required(); };
  s = add("get", "Show a bottle with its status", "bottle get hello -o yaml");
  name_option(s);
  format(s, get_format, {"yaml", "json"});
  s->callback([&] { code = get(c, name, get_format); });

  ExecOptions exec_o;
  std::vector<std::string> exec_env;
  s = add("exec", "Run a command in the agent's container; returns its exit code", "bottle exec -it hello -- bash");
  s->add_flag("-i,--stdin", exec_o.stdin_open, "connect standard input");
  s->add_flag("-t,--tty", exec_o.tty, "give it a terminal");
  s->add_option("-u,--user", exec_o.user, "user in the container (default: the agent's; Docker only)");
  s->add_option("-w,--workdir", exec_o.working_dir, "working directory (on Kubernetes by env(1) of the image)");
  s->add_option("-e,--env", exec_env, "NAME=VALUE; repeatable; no secrets: the agent can read it")->take_all()->allow_extra_args(false);
  name_option(s);
  s->callback([&] {
    if (command.empty()) throw CLI::ValidationError("exec", "no command; say: bottle exec " + name + " -- COMMAND [ARG]...");
    for (const auto& e : exec_env) {
      const size_t eq = e.find('=');
      if (eq == 0 || eq == std::string::npos) throw CLI::ValidationError("--env", "expected NAME=VALUE");
      exec_o.env.push_back({e.substr(0, eq), e.substr(eq + 1)});
    }
    exec_o.argv = command;
    code = exec(c, name, exec_o);
  });

  s = add("attach", "Connect the terminal to the agent itself", "bottle attach hello");
  name_option(s);
  s->callback([&] { code = attach(c, name); });

  LogOptions log_o;
  std::string role = "agent";
  s = add("logs", "Print what the agent, or a sidecar, wrote", "bottle logs -f hello egress");
  name_option(s);
  s->add_option("container", role, "agent, egress or guard")->capture_default_str()->check(CLI::IsMember(std::set<std::string>{"agent", "egress", "guard"}));
  s->add_flag("-f,--follow", log_o.follow, "go on until interrupted");
  s->add_option("--tail", log_o.tail, "last lines only")->check(CLI::NonNegativeNumber);
  s->add_flag("--timestamps", log_o.timestamps, "with times");
  s->callback([&] { code = logs(c, name, role, log_o); });

  s = add("audit", "Print every verdict: one JSON line each, then what the guard refused", "bottle audit hello -o text");
  name_option(s);
  s->add_flag("-f,--follow", log_o.follow, "go on until interrupted");
  s->add_option("--tail", log_o.tail, "last verdicts only")->check(CLI::NonNegativeNumber);
  format(s, audit_format, {"json", "text"});
  s->callback([&] { code = audit(c, name, log_o, audit_format); });

  ExplainOptions ex;
  std::vector<std::string> ex_args;
  s = add("explain", "Say whether a request would be let through, and why; sends nothing. Exit code 1 if refused",
          "bottle explain hello https://api.example.com/v1/things --method POST");
  s->add_option("what", ex_args, "NAME URL, or only URL with -f")->required()->expected(1, 2);
  s->add_option("-f,--file", ex.file, "ask a Bottle file instead of a running bottle");
  s->add_option("-X,--method", ex.method, "HTTP method")->capture_default_str();
  format(s, ex.output, {"text", "json"});
  s->callback([&] {
    if (ex_args.size() != (ex.file.empty() ? 2u : 1u)) throw CLI::ValidationError("explain", "expected NAME URL, or -f FILE URL");
    ex.name = ex.file.empty() ? ex_args[0] : "";
    ex.url = ex_args.back();
    code = explain(c, ex);
  });

  DownOptions down_o;
  s = add("down", "Stop bottles and remove everything of theirs", "bottle down hello");
  s->add_option("names", down_o.names, "the bottles' names");
  s->add_option("-f,--file", down_o.file, "the bottles of this file");
  s->add_flag("--all", down_o.all, "every bottle");
  s->callback([&] { code = down(c, down_o); });

  bool dry_run = false;
  s = add("cleanup", "Remove what interrupted or broken bottles left; running ones are not touched", "bottle cleanup --dry-run");
  s->add_flag("--dry-run", dry_run, "only say what would go");
  s->callback([&] { code = cleanup(c, dry_run); });

  s = add("doctor", "Check engine or cluster, kernel, images, rights and DNS, and say what to do", "bottle doctor --backend kubernetes -n dev");
  format(s, doctor_format, {"text", "json"});
  s->callback([&] { code = doctor(c, doctor_format); });

  std::string shell;
  s = add("completion", "Print a completion script", "source <(bottle completion bash)");
  s->add_option("shell", shell, "bash, zsh or fish")->required()->check(CLI::IsMember(std::set<std::string>{"bash", "zsh", "fish"}));
  s->callback([&] { code = completion(c, shell); });

  s = add("version", "Print the version", "bottle version");
  s->callback([&] { code = version(c); });

  if (args.empty()) {
    c.err << app.help();
    return kBadInput;
  }
  try {
    std::vector<std::string> reversed(args.rbegin(), args.rend());  // the order that CLI11 takes a vector in
    app.parse(reversed);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) {
      app.exit(e, c.out, c.err);  // --help, --version
      return kOk;
    }
    c.err << paint(c.color_err, Color::kRed, "error:") << " " << printable(e.what()) << "\n";
    std::string where = "bottle";
    for (const auto* sub : app.get_subcommands()) where += " " + sub->get_name();
    c.err << "run `" << where << " --help` for usage and an example\n";
    return kBadInput;
  }
  return code;
}

}  // namespace bottle::cli
