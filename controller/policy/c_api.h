/* The policy as a shared library (libbottle-policy.so) for engines that are not C++: the mitmproxy add-on calls it
 * through ctypes, so that what decides exists once. All strings are UTF-8; results are malloc'ed JSON, freed with
 * bottle_policy_free. A table is immutable and may be used from any thread. Never throws, never returns NULL but
 * where said. */
#ifndef CONTROLLER_POLICY_C_API_H_
#define CONTROLLER_POLICY_C_API_H_

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bottle_policy_table bottle_policy_table;

/* NULL on error, then *error is a message to free. */
bottle_policy_table* bottle_policy_load(const char* json, size_t size, char** error);
void bottle_policy_unload(bottle_policy_table* table);
void bottle_policy_free(char* text);

/* {"policyHash":…,"bottle":…,"mode":"enforce"|"learn","tokens":[env…],"routes":N} */
char* bottle_policy_info(const bottle_policy_table* table);
/* Verdict JSON: {"allowed":bool,"status":int,"code":…,"reason":…,"hint":…,"host":…,"port":…,"method":…,"target":…,
 * "route":int,"inspect":"headers"|"none"|"full","inject":[{"header":…,"tokenEnv":…,"prefix":…}],"body":"<refusal body>"} */
char* bottle_policy_judge_connect(const bottle_policy_table* table, const char* host, int port);
/* request: {"tls":bool,"connectHost":…,"port":int,"sni":string|null,"hosts":[…],"method":…,"target":…}. Strings are the
 * bytes as received, each as one latin-1 code point (Python: raw.decode("latin-1")), so that overlong UTF-8 is seen. */
char* bottle_policy_judge_request(const bottle_policy_table* table, const char* request_json, size_t size);
int bottle_policy_address_allowed(const bottle_policy_table* table, const char* address);
int bottle_policy_is_credential_header(const char* lower_case_name);

#ifdef __cplusplus
}
#endif

#endif /* CONTROLLER_POLICY_C_API_H_ */
