// The schema and the parser are one language: the same fields, the same choices, the same defaults, the same verdicts. What an API server
// makes of the corpus is tested in tests/integration/crd_corpus_test.cc.
#include <gmock/gmock.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "controller/bottle/parse.h"

namespace bottle {
namespace {

using Json = nlohmann::ordered_json;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;

const char kCrd[] = BOTTLE_SOURCE_DIR "/crds/bot-bottle.dev_bottles.yaml";
const char kCorpus[] = BOTTLE_SOURCE_DIR "/tests/testdata/bottles/";

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

YAML::Node version() { return YAML::LoadFile(kCrd)["spec"]["versions"][0]; }
YAML::Node spec_schema() { return version()["schema"]["openAPIV3Schema"]["properties"]["spec"]; }

struct Field {
  std::string path, type, fallback, description;
  std::vector<std::string> choices;
};

// Every field below `schema`; a list's items are the field's own.
void walk(const YAML::Node& schema, const std::string& path, std::vector<Field>* out) {
  YAML::Node at = schema;
  while (at["items"]) at.reset(at["items"]);
  for (const auto& entry : at["properties"]) {
    Field field;
    field.path = path + "." + entry.first.as<std::string>();
    const YAML::Node node = entry.second;
    if (node["type"]) field.type = node["type"].as<std::string>();
    if (node["description"]) field.description = node["description"].as<std::string>();
    if (node["default"] && node["default"].IsScalar()) field.fallback = node["default"].as<std::string>();
    if (node["enum"]) field.choices = node["enum"].as<std::vector<std::string>>();
    out->push_back(field);
    walk(node, field.path, out);
  }
}

std::vector<Field> spec_fields() {
  std::vector<Field> fields;
  walk(spec_schema(), "spec", &fields);
  return fields;
}

// A Bottle with all that a cluster takes, and a value where a schema field's path leads.
Json full_bottle() {
  return Json::parse(R"({"apiVersion": "bot-bottle.dev/v1alpha1", "kind": "Bottle", "metadata": {"name": "b"}, "spec": {
    "agent": {"image": "a", "command": [], "args": [], "env": [{"name": "A", "value": "b"}], "workingDir": "/w", "runAsUser": 1, "tty": false,
              "resources": {"requests": {"memory": 1, "cpu": 1}, "limits": {"memory": 1, "cpu": 1}}, "restartPolicy": "Never", "workspace": {}},
    "egress": {"engine": "mitmproxy", "mode": "enforce", "allowCIDRs": [], "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}], "upstreamCAs": [],
               "routes": [{"host": "a.test", "ports": [443], "methods": ["GET"], "paths": ["/"], "encodedSlash": "refuse", "inspect": "headers",
                           "inject": [{"header": "x", "prefix": "", "secretKeyRef": {"name": "s", "key": "k"}}]}]},
    "pipelock": {"enabled": false, "dlp": {"action": "block"}, "injection": {"action": "block"}},
    "supervise": {"enabled": false, "timeoutSeconds": 1}, "pki": {"keyType": ""}, "isolation": "Sidecar", "runtimeClassName": "",
    "suspend": false, "activeDeadlineSeconds": 1, "ttlSecondsAfterFinished": 0}})");
}

// The mapping that holds the field, made on the way.
Json* parent_of(Json& bottle, const std::string& path, std::string* name) {
  Json* at = &bottle;
  std::stringstream parts(path);
  std::string part;
  std::vector<std::string> all;
  while (std::getline(parts, part, '.')) all.push_back(part);
  *name = all.back();
  all.pop_back();
  for (const std::string& step : all) {
    if (!at->contains(step)) (*at)[step] = Json::object();
    at = &(*at)[step];
    if (at->is_array()) {
      if (at->empty()) at->push_back(Json::object());
      at = &(*at)[0];
    }
  }
  return at;
}

std::string errors_of(const std::string& text) {
  std::string out;
  for (const Diagnostic& d : parse_bottle_file(text).diagnostics) {
    if (d.severity == Diagnostic::Severity::kError) out += d.path + ": " + d.message + "\n";
  }
  return out;
}

TEST(Crd, IsSmallEnoughToBeApplied) {
  // An object is at most 1.5 MB, but kubectl apply keeps a copy in an annotation of at most 256 KiB.
  EXPECT_LT(read_file(kCrd).size(), 60'000u);
}

TEST(Crd, DescribesEveryField) {
  std::vector<Field> fields = spec_fields();
  walk(version()["schema"]["openAPIV3Schema"]["properties"]["status"], "status", &fields);
  EXPECT_GT(fields.size(), 80u);
  for (const Field& field : fields) {
    EXPECT_TRUE(field.description.ends_with(".")) << field.path;
    if (!field.fallback.empty() && field.path.starts_with("spec")) {
      EXPECT_THAT(field.description, HasSubstr("Default " + field.fallback)) << field.path;
    }
  }
}

TEST(Crd, TheParserKnowsEveryField) {
  for (const Field& field : spec_fields()) {
    Json bottle = full_bottle();
    std::string name;
    Json* parent = parent_of(bottle, field.path, &name);
    // A value of no type that any field takes: what is said about it shows whether the field is known.
    (*parent)[name] = Json::array({Json::array({Json::array()})});
    EXPECT_THAT(errors_of(bottle.dump()), Not(HasSubstr("unknown field"))) << field.path;
    EXPECT_NE(errors_of(bottle.dump()), "") << field.path;
    parent->erase(name);
    (*parent)[name + "Typo"] = 1;
    EXPECT_THAT(errors_of(bottle.dump()), HasSubstr("unknown field")) << field.path;
  }
}

TEST(Crd, HasEveryFieldOfTheParser) {
  std::set<std::string> known;
  for (const Field& field : spec_fields()) known.insert(field.path);
  // Asking the parser: it lists what is known beside an unknown field, when that is short; render_bottle_json writes everything that is read.
  BottleFile file = parse_bottle_file(full_bottle().dump());
  ASSERT_TRUE(file.ok()) << errors_of(full_bottle().dump());
  Json rendered = Json::parse(render_bottle_json(file.bottles[0]));
  std::function<void(const Json&, const std::string&)> visit = [&](const Json& at, const std::string& path) {
    if (at.is_array()) {
      for (const Json& item : at) visit(item, path);
    } else if (at.is_object()) {
      for (const auto& [name, value] : at.items()) {
        EXPECT_THAT(known, Contains(path + "." + name));
        visit(value, path + "." + name);
      }
    }
  };
  visit(rendered["spec"], "spec");

  // And each mapping's own list of fields, as an unknown one makes the parser tell it.
  std::set<std::string> mappings = {"spec"};
  for (const std::string& path : known) mappings.insert(path.substr(0, path.rfind('.')));
  for (const std::string& path : mappings) {
    Json bottle = full_bottle();
    std::string name;
    Json* parent = parent_of(bottle, path + ".qqqqqqqq", &name);
    (*parent)[name] = 1;
    std::string told = errors_of(bottle.dump());
    size_t at = told.find("(known here: ");
    ASSERT_NE(at, told.npos) << path << "\n" << told;
    at += std::string("(known here: ").size();
    std::stringstream names(told.substr(at, told.find(')', at) - at));
    while (std::getline(names, name, ',')) {
      name.erase(0, name.find_first_not_of(' '));
      // Fields that are read to be refused with a better message are none of the schema's.
      EXPECT_THAT(known, Contains(path + "." + name));
    }
  }
}

TEST(Crd, OffersTheSameChoices) {
  for (const Field& field : spec_fields()) {
    for (const std::string& choice : field.choices) {
      Json bottle = full_bottle();
      bottle["spec"]["egress"]["routes"] = Json::array({{{"host", "a.test"}}});
      std::string name;
      Json* parent = parent_of(bottle, field.path, &name);
      (*parent)[name] = choice;
      EXPECT_EQ(errors_of(bottle.dump()), "") << field.path << " " << choice;
    }
    if (field.choices.empty()) continue;
    Json bottle = full_bottle();
    std::string name;
    (*parent_of(bottle, field.path, &name))[name] = "qqqqqqqq";
    std::string told = errors_of(bottle.dump());
    EXPECT_THAT(told, HasSubstr("is not one of")) << field.path;
    // The parser may know more than this version supports: those it refuses by name.
    size_t from = told.find("is not one of ") + 14;
    std::stringstream names(told.substr(from, told.find('\n', from) - from));
    for (std::string word; std::getline(names, word, ',');) {
      word.erase(0, word.find_first_not_of(' '));
      if (word == "\"\"") word.clear();
      if (std::count(field.choices.begin(), field.choices.end(), word)) continue;
      (*parent_of(bottle, field.path, &name))[name] = word;
      EXPECT_NE(errors_of(bottle.dump()), "") << field.path << " " << word;
    }
  }
}

TEST(Crd, FillsInTheSameDefaults) {
  const std::string least = R"({"apiVersion": "bot-bottle.dev/v1alpha1", "kind": "Bottle", "metadata": {"name": "b"}, "spec": {
      "agent": {"image": "a"}, "pipelock": {"enabled": false},
      "egress": {"routes": [{"host": "a.test", "inject": [{"header": "x", "secretKeyRef": {"name": "s", "key": "k"}}]}]}}})";
  BottleFile file = parse_bottle_file(least);
  ASSERT_TRUE(file.ok());
  Json rendered = Json::parse(render_bottle_json(file.bottles[0]));
  int defaults = 0;
  for (const Field& field : spec_fields()) {
    if (field.fallback.empty()) continue;
    ++defaults;
    std::string name;
    Json value = (*parent_of(rendered, field.path, &name))[name];
    EXPECT_EQ(value.is_string() ? value.get<std::string>() : value.dump(), field.fallback) << field.path;
  }
  EXPECT_GE(defaults, 8);
  YAML::Node ports = spec_schema()["properties"]["egress"]["properties"]["routes"]["items"]["properties"]["ports"]["default"];
  EXPECT_EQ(ports.as<std::vector<int>>(), rendered["spec"]["egress"]["routes"][0]["ports"].get<std::vector<int>>());
}

// good and laptop parse, bad and parser-only do not.
TEST(Crd, TheParserJudgesTheCorpus) {
  const std::map<std::string, std::pair<bool, size_t>> folders = {
      {"good", {true, 70}}, {"bad", {false, 200}}, {"parser-only", {false, 10}}, {"laptop", {true, 2}}};
  for (const auto& [folder, expected] : folders) {
    size_t files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(kCorpus + folder)) {
      ++files;
      std::string told = errors_of(read_file(entry.path()));
      EXPECT_EQ(told.empty(), expected.first) << entry.path() << "\n" << told;
    }
    EXPECT_GE(files, expected.second) << folder;
  }
}

}  // namespace
}  // namespace bottle
