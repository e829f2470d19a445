// What is wrong with an agent, or with the bottle around it, and what the user is told.
#include <gtest/gtest.h>

#include "controller/bottle/test_bottle.h"

namespace bottle {
namespace {

const ErrorCase kCases[] = {
    {"AgentMissing", in_spec(R"(egress: {}
)"),
     R"(5:3: spec.agent: required
)"},
    {"ImageMissing", in_spec(R"(agent: { command: [x] }
)"),
     R"(5:10: spec.agent.image: required
)"},
    {"ImageBad", in_spec(R"(agent: { image: "a b" }
)"),
     R"(5:19: spec.agent.image: "a b" is not an image, such as registry.example.com/team/agent:1.2
)"},
    {"ImageIsNumber", in_spec(R"(agent: { image: 12 }
)"),
     R"(5:19: spec.agent.image: expected a string, found the number 12: put it in quotes
)"},
    {"SpecUnknownField", in_spec(R"(agent: { image: a }
egres: {}
)"),
     R"(6:3: spec.egres: unknown field, did you mean "egress"?
)"},
    {"UnknownFieldFarFromAll", in_spec(R"(agent: { image: a, resources: { gpu: 1 } }
)"),
     R"(5:35: spec.agent.resources.gpu: unknown field (known here: requests, limits)
)"},
    {"AgentIsList", in_spec(R"(agent: [a]
)"),
     R"(5:10: spec.agent: expected a mapping, found a list
)"},
    {"CommandIsString", in_spec(R"(agent: { image: a, command: sleep }
)"),
     R"(5:31: spec.agent.command: expected a list, found the string "sleep"
)"},
    {"CommandItemIsBool", in_spec(R"(agent: { image: a, command: [echo, yes] }
)"),
     R"(5:38: spec.agent.command[1]: expected a string, found the boolean yes: put it in quotes
)"},
    {"EnvBadName", in_spec(R"(agent: { image: a, env: [{ name: 1A, value: x }] }
)"),
     R"(5:36: spec.agent.env[0].name: "1A" is not a variable name: letters, digits and '_', no digit first
)"},
    {"EnvTwice", in_spec(R"(agent:
  image: a
  env:
  - { name: A, value: x }
  - { name: A, value: z }
)"),
     R"(9:15: spec.agent.env[1].name: "A" is set already on line 8
)"},
    {"EnvProxy", in_spec(R"(agent: { image: a, env: [{ name: https_proxy, value: "http://x" }] }
)"),
     R"(5:36: spec.agent.env[0].name: "https_proxy" is set by the bottle itself (proxy and trust): leave it out
)"},
    {"EnvTrust", in_spec(R"(agent: { image: a, env: [{ name: SSL_CERT_FILE, value: /x }] }
)"),
     R"(5:36: spec.agent.env[0].name: "SSL_CERT_FILE" is set by the bottle itself (proxy and trust): leave it out
)"},
    {"EnvGitConfig", in_spec(R"(agent: { image: a, env: [{ name: GIT_CONFIG_KEY_0, value: x }] }
)"),
     R"(5:36: spec.agent.env[0].name: "GIT_CONFIG_KEY_0" is set by the bottle itself (proxy and trust): leave it out
)"},
    {"EnvOwn", in_spec(R"(agent: { image: a, env: [{ name: BOT_BOTTLE_TOKEN_A, value: x }] }
)"),
     R"(5:36: spec.agent.env[0].name: "BOT_BOTTLE_TOKEN_A" is set by the bottle itself (proxy and trust): leave it out
)"},
    {"EnvValueFrom", in_spec(R"(agent: { image: a, env: [{ name: A, valueFrom: { secretKeyRef: { name: s, key: k } } }] }
)"),
     R"(5:39: spec.agent.env[0].valueFrom: a bottle cannot hand the agent a secret: inject it on a route instead
)"},
    {"EnvValueIsNumber", in_spec(R"(agent: { image: a, env: [{ name: A, value: 1 }] }
)"),
     R"(5:46: spec.agent.env[0].value: expected a string, found the number 1: put it in quotes
)"},
    {"EnvGithubToken", in_spec(R"(agent: { image: a, env: [{ name: A, value: ghp_0123456789abcdefghij }] }
)"),
     R"(5:46: spec.agent.env[0].value: looks like a GitHub token, and a bottle holds no credentials: put it into a Secret and inject it on a route
)"},
    {"EnvOpenAiKey", in_spec(R"(agent: { image: a, env: [{ name: A, value: sk-proj-0123456789abcdef }] }
)"),
     R"(5:46: spec.agent.env[0].value: looks like an API key, and a bottle holds no credentials: put it into a Secret and inject it on a route
)"},
    {"EnvAwsKey", in_spec(R"(agent: { image: a, env: [{ name: A, value: AKIAIOSFODNN7EXAMPLE }] }
)"),
     R"(5:46: spec.agent.env[0].value: looks like an AWS access key, and a bottle holds no credentials: put it into a Secret and inject it on a route
)"},
    {"EnvPrivateKey", in_spec(R"(agent:
  image: a
  env:
  - name: A
    value: |
      -----BEGIN OPENSSH PRIVATE KEY-----
      b3BlbnNzaC1rZXktdjEA
)"),
     R"(9:14: spec.agent.env[0].value: looks like a private key, and a bottle holds no credentials: put it into a Secret and inject it on a route
)"},
    {"CommandBearer", in_spec(R"(agent: { image: a, command: [curl, -H, "Authorization: Bearer 0123456789abcdef0123456789"] }
)"),
     R"(5:42: spec.agent.command[2]: looks like a bearer token, and a bottle holds no credentials: put it into a Secret and inject it on a route
)"},
    {"SecretAsKey", in_spec(R"(agent: { image: a, ghp_0123456789abcdefghij: x }
)"),
     R"(5:22: spec.agent.<hidden>: unknown field (known here: image, command, args, env, workingDir, runAsUser, tty, restartPolicy, resources, workspace)
5:22: spec.agent.<hidden>: looks like a GitHub token, and a bottle holds no credentials: put it into a Secret and inject it on a route
)"},
    {"WorkingDirRelative", in_spec(R"(agent: { image: a, workingDir: work }
)"),
     R"(5:34: spec.agent.workingDir: "work" is not an absolute path
)"},
    {"WorkingDirDots", in_spec(R"(agent: { image: a, workingDir: /a/../b }
)"),
     R"(5:34: spec.agent.workingDir: "/a/../b" is not plain: write it without //, . and ..
)"},
    {"WorkingDirSlashes", in_spec(R"(agent: { image: a, workingDir: // }
)"),
     R"(5:34: spec.agent.workingDir: "//" is not plain: write it without //, . and ..
)"},
    {"CpuIsAFloat", in_spec(R"(agent: { image: a, resources: { limits: { cpu: 0.5 } } }
)"),
     R"(5:50: spec.agent.resources.limits.cpu: expected a string, found the number 0.5: put it in quotes
)"},
    {"TooManyArgs", in_spec("agent: { image: a, args: [" + repeat("a,", 257) + "] }\n"),
     R"(5:28: spec.agent.args: more than 256 values
)"},
    {"RunAsRoot", in_spec(R"(agent: { image: a, runAsUser: 0 }
)"),
     R"(5:33: spec.agent.runAsUser: the agent may not run as root: choose another UID, such as 1000
)"},
    {"RunAsSidecar", in_spec(R"(agent: { image: a, runAsUser: 10001 }
)"),
     R"(5:33: spec.agent.runAsUser: UIDs 10001-10099 are reserved for sidecars: choose another, such as 1000
)"},
    {"RunAsSidecarLast", in_spec(R"(agent: { image: a, runAsUser: 10099 }
)"),
     R"(5:33: spec.agent.runAsUser: UIDs 10001-10099 are reserved for sidecars: choose another, such as 1000
)"},
    {"RunAsNegative", in_spec(R"(agent: { image: a, runAsUser: -1 }
)"),
     R"(5:33: spec.agent.runAsUser: expected a whole number from 0 to 2147483647, found the number -1
)"},
    {"RunAsOctal", in_spec(R"(agent: { image: a, runAsUser: 01000 }
)"),
     R"(5:33: spec.agent.runAsUser: expected a whole number from 0 to 2147483647, found the number 01000
)"},
    {"TtyYes", in_spec(R"(agent: { image: a, tty: yes }
)"),
     R"(5:27: spec.agent.tty: expected true or false, found the boolean yes
)"},
    {"RestartPolicyCase", in_spec(R"(agent: { image: a, restartPolicy: always }
)"),
     R"(5:37: spec.agent.restartPolicy: "always" is not one of Never, OnFailure, Always; did you mean "Always"?
)"},
    {"QuantityBad", in_spec(R"(agent: { image: a, resources: { limits: { memory: 10Gb, cpu: 0 } } }
)"),
     R"(5:53: spec.agent.resources.limits.memory: "10Gb": not a quantity, such as 512Mi, 10Gi, 500m or 2
5:64: spec.agent.resources.limits.cpu: "0": must be more than zero
)"},
    {"RequestOverLimit", in_spec(R"(agent: { image: a, resources: { requests: { memory: 2Gi, cpu: 2 }, limits: { memory: 1Gi, cpu: 500m } } }
)"),
     R"(5:55: spec.agent.resources.requests.memory: is more than the limit
5:65: spec.agent.resources.requests.cpu: is more than the limit
)"},
    {"WorkspaceTwo", in_spec(R"(agent: { image: a, workspace: { emptyDir: {}, hostPath: { path: /home/me/x } } }
)"),
     R"(5:33: spec.agent.workspace: choose one of emptyDir, persistentVolumeClaim and hostPath
)"},
    {"WorkspaceClone", in_spec(R"(agent: { image: a, workspace: { clone: { url: "https://x.test/a.git" } } }
)"),
     R"(5:35: spec.agent.workspace.clone: not supported by this version: clone inside the agent, over a route to the git host
)"},
    {"WorkspaceRoot", in_spec(R"(agent: { image: a, workspace: { hostPath: { path: / } } }
)"),
     R"(5:53: spec.agent.workspace.hostPath.path: "/" would hand the agent the host: give it a folder of its own
)"},
    {"WorkspaceDockerSocket", in_spec(R"(agent: { image: a, workspace: { hostPath: { path: /var/run/docker.sock } } }
)"),
     R"(5:53: spec.agent.workspace.hostPath.path: "/var/run/docker.sock" would hand the agent the host: give it a folder of its own
)"},
    {"WorkspaceClaimName", in_spec(R"(agent: { image: a, workspace: { persistentVolumeClaim: { claimName: My_Claim } } }
)"),
     R"(5:71: spec.agent.workspace.persistentVolumeClaim.claimName: "My_Claim" is not a name: a-z, 0-9, '-' and '.', letters or digits first and last
)"},
    {"EngineNative", in_spec(R"(agent: { image: a }
egress: { engine: native }
)"),
     R"(6:21: spec.egress.engine: native is not supported by this version: write engine: mitmproxy
)"},
    {"EngineUnknown", in_spec(R"(agent: { image: a }
egress: { engine: mitmprox }
)"),
     R"(6:21: spec.egress.engine: "mitmprox" is not one of mitmproxy, native; did you mean "mitmproxy"?
)"},
    {"ModeUnknown", in_spec(R"(agent: { image: a }
egress: { mode: off }
)"),
     R"(6:19: spec.egress.mode: expected a string, found the boolean off: put it in quotes
)"},
    {"PipelockOmitted", in_spec(R"(agent: { image: a }
egress: { routes: [{ host: a.test }] }
)"),
     R"(5:3: spec.pipelock: required with routes: no scanner is in the way of what the agent sends, so say so: write pipelock: { enabled: false }
)"},
    {"PipelockOn", in_spec(R"(agent: { image: a }
pipelock: { dlp: { action: block } }
)"),
     R"(6:13: spec.pipelock: not supported by this version: write pipelock: { enabled: false }
)"},
    {"PipelockKeys", in_spec(R"(agent: { image: a }
pipelock: { enabled: false, dlp: { acton: block }, injection: { action: stop }, x: 1 }
)"),
     R"(6:38: spec.pipelock.dlp.acton: unknown field, did you mean "action"?
6:75: spec.pipelock.injection.action: "stop" is not one of block, warn
6:83: spec.pipelock.x: unknown field (known here: enabled, dlp, injection)
)"},
    {"GitSection", in_spec(R"(agent: { image: a }
git: { repositories: [] }
)"),
     R"(6:3: spec.git: not supported by this version: leave it out, and list the git host as a route (https)
)"},
    {"SuperviseOn", in_spec(R"(agent: { image: a }
supervise: { enabled: true, timeoutSeconds: 180 }
)"),
     R"(6:25: spec.supervise.enabled: not supported by this version: write enabled: false, and list what may be reached as routes
)"},
    {"SuperviseOff", in_spec(R"(agent: { image: a }
supervise: { enabled: false, timeoutSeconds: 180 }
)"),
     ""},
    {"KeyTypeUnknown", in_spec(R"(agent: { image: a }
pki: { keyType: RSA-4096 }
)"),
     R"(6:19: spec.pki.keyType: "RSA-4096" is not one of "", RSA-2048, ECDSA-P256
)"},
    {"IsolationGateway", in_spec(R"(agent: { image: a }
isolation: Gateway
)"),
     R"(6:14: spec.isolation: Gateway is not supported by this version: write isolation: Sidecar
)"},
    {"RuntimeClass", in_spec(R"(agent: { image: a }
runtimeClassName: gvisor
)"),
     R"(6:21: spec.runtimeClassName: not supported by this version: leave the field out
)"},
    {"Deadlines", in_spec(R"(agent: { image: a }
activeDeadlineSeconds: 0
ttlSecondsAfterFinished: 1h
)"),
     R"(6:26: spec.activeDeadlineSeconds: expected a whole number from 1 to 2147483647, found the number 0
7:28: spec.ttlSecondsAfterFinished: expected a whole number from 0 to 2147483647, found the string "1h"
)"},
    {"DuplicateKey", in_spec(R"(agent: { image: a, image: b }
)"),
     R"(5:22: spec.agent.image: duplicate key, first set on line 5
)"},
    {"Alias", in_spec(R"(agent: { image: &i a, command: [*i] }
)"),
     R"(5:35: spec.agent.command[0]: aliases are not supported: write the value out here
)"},
    {"Tag", in_spec(R"(agent: { image: !!binary YQ== }
)"),
     R"(5:19: spec.agent.image: YAML tags are not supported: leave the tag out
5:19: spec.agent.image: "YQ==" is not an image, such as registry.example.com/team/agent:1.2
)"},
    {"EveryErrorAtOnce", in_spec(R"(agent: { imag: a, runAsUser: 0 }
egress:
  routes:
  - hots: a.test
    ports: [70000]
  - host: b.test
    method: [GET]
)"),
     R"(5:3: spec.pipelock: required with routes: no scanner is in the way of what the agent sends, so say so: write pipelock: { enabled: false }
5:12: spec.agent.imag: unknown field, did you mean "image"?
5:32: spec.agent.runAsUser: the agent may not run as root: choose another UID, such as 1000
8:7: spec.egress.routes[0].hots: unknown field, did you mean "host"?
9:15: spec.egress.routes[0].ports[0]: expected a whole number from 1 to 65535, found the number 70000
11:7: spec.egress.routes[1].method: unknown field, did you mean "methods"?
)"},
    {"Empty", R"(
)",
     R"(0:0: the file is empty: expected kind: Bottle
)"},
    {"OnlyComment", R"(# nothing
)",
     R"(0:0: the file is empty: expected kind: Bottle
)"},
    {"Scalar", R"(hello
)",
     R"(1:1: expected a mapping with apiVersion: bot-bottle.dev/v1alpha1 and kind: Bottle
)"},
    {"NoKind", R"(apiVersion: v1
)",
     R"(1:1: kind: required: Bottle or Secret
)"},
    {"OtherKind", R"(apiVersion: v1
kind: Pod
)",
     R"(2:7: kind: "Pod" is not read here: expected Bottle or Secret
)"},
    {"KindCase", R"(kind: bottle
)",
     R"(1:7: kind: "bottle" is not read here: expected Bottle or Secret; did you mean "Bottle"?
)"},
    {"OldVersion", R"(apiVersion: bot-bottle.dev/v1
kind: Bottle
metadata: { name: a }
spec: { agent: { image: a } }
)",
     R"(1:13: apiVersion: "bot-bottle.dev/v1" is not known: write bot-bottle.dev/v1alpha1
)"},
    {"NameUpper", R"(apiVersion: bot-bottle.dev/v1alpha1
kind: Bottle
metadata: { name: Hello, labels: { a: b } }
spec: { agent: { image: a } }
)",
     R"(3:19: metadata.name: "Hello" is not a name: at most 63 of a-z, 0-9 and '-', which is not first or last
)"},
    {"NameTooLong", R"(apiVersion: bot-bottle.dev/v1alpha1
kind: Bottle
metadata: { name: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa }
spec: { agent: { image: a } }
)",
     R"(3:19: metadata.name: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" is not a name: at most 63 of a-z, 0-9 and '-', which is not first or last
)"},
    {"NothingElse", R"(kind: Bottle
)",
     R"(1:1: apiVersion: required
1:1: metadata: required
1:1: spec: required
)"},
    {"BottleTwice", R"({apiVersion: bot-bottle.dev/v1alpha1, kind: Bottle, metadata: {name: a}, spec: {agent: {image: a}}}
---
{apiVersion: bot-bottle.dev/v1alpha1, kind: Bottle, metadata: {name: a}, spec: {agent: {image: a}}}
)",
     R"(3:70: metadata.name: the file has a bottle "a" already
)"},
    {"SecretNotBase64", R"(apiVersion: v1
kind: Secret
metadata: { name: s }
data: { a: hunter2, b: 1, "c d": x }
)",
     R"(4:12: data.a: not base64: use stringData for plain text
4:24: data.b: expected a string: put it in quotes
4:27: data.c d: "c d" is not a Secret's key: letters, digits, '-', '_' and '.'
)"},
    {"SecretTwice", R"({apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {a: x}}
---
{apiVersion: v1, kind: Secret, metadata: {name: s}, stringdata: {a: x}}
)",
     R"(3:49: metadata.name: the file has a secret "s" already
3:53: stringdata: unknown field, did you mean "stringData"?
)"},
    {"SyntaxError", R"(kind: Bottle
  spec: [
)",
     R"(2:7: not valid YAML: illegal map value
)"},
    {"ErrorsBeforeSyntaxError", R"(kind: Botle
---
a: [
)",
     R"(1:7: kind: "Botle" is not read here: expected Bottle or Secret; did you mean "Bottle"?
4:1: not valid YAML: end of sequence flow not found
)"},
    {"ListAsKey", R"(? [a]
: b
)",
     R"(1:3: a key must be text, not a list or a mapping
)"},
    {"NullKey", R"(~: b
)",
     R"(1:1: a key must be text
)"},
};

class AgentErrors : public testing::TestWithParam<ErrorCase> {};

TEST_P(AgentErrors, TellsTheUser) { EXPECT_EQ(diagnostics_of(GetParam().text), GetParam().expected); }

INSTANTIATE_TEST_SUITE_P(Parse, AgentErrors, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace bottle
