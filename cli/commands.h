// The commands, by noun: what runs (bottle_commands.cc), what it does (agent_commands.cc), the machine (system_commands.cc).
// Each takes parsed options and returns an exit code.
#ifndef CLI_COMMANDS_H_
#define CLI_COMMANDS_H_

#include <string>
#include <vector>

#include "cli/cli.h"

namespace bottle::cli {

struct UpOptions {
  std::string file;
  std::vector<std::string> resolvers, upstream_cas;
  bool no_pull = false;
};
int up(Context& c, const UpOptions& o);
int render(Context& c, const UpOptions& o);
int ls(Context& c, const std::string& output);
int get(Context& c, const std::string& name, const std::string& output);
struct DownOptions {
  std::vector<std::string> names;
  std::string file;
  bool all = false;
};
int down(Context& c, const DownOptions& o);

int exec(Context& c, const std::string& name, const ExecOptions& o);
int attach(Context& c, const std::string& name);
int logs(Context& c, const std::string& name, const std::string& role, const LogOptions& o);
int audit(Context& c, const std::string& name, const LogOptions& o, const std::string& output);
struct ExplainOptions {
  std::string name, file, url, method = "GET", output = "text";
};
int explain(Context& c, const ExplainOptions& o);

int cleanup(Context& c, bool dry_run);
int doctor(Context& c, const std::string& output);
int completion(Context& c, const std::string& shell);
int version(Context& c);
// What kubectl asks its plugin's helper kubectl_complete-bottle: the words so far, the last one unfinished.
int complete(Context& c, const std::vector<std::string>& words);

}  // namespace bottle::cli

#endif  // CLI_COMMANDS_H_
