#include "controller/kube/resource.h"

#include <gtest/gtest.h>

namespace bottle::kube {
namespace {

TEST(Resource, PathsOfCoreAndGroups) {
  EXPECT_EQ(collection_path(kPods, ""), "/api/v1/pods");
  EXPECT_EQ(collection_path(kPods, "dev"), "/api/v1/namespaces/dev/pods");
  EXPECT_EQ(collection_path(kBottles, "dev", {{"watch", "1"}}), "/apis/bot-bottle.dev/v1alpha1/namespaces/dev/bottles?watch=1");
  EXPECT_EQ(object_path(kBottles, "dev", "hello", "status", {{"fieldManager", "bottle-controller"}, {"force", "true"}}),
            "/apis/bot-bottle.dev/v1alpha1/namespaces/dev/bottles/hello/status?fieldManager=bottle-controller&force=true");
  EXPECT_EQ(object_path(kNamespaces, "", "dev"), "/api/v1/namespaces/dev");
  EXPECT_EQ(object_path(kNodes, "", "node-1"), "/api/v1/nodes/node-1");
}

TEST(Resource, EveryPartIsEncoded) {
  EXPECT_EQ(collection_path(kPods, "dev", {{"labelSelector", "a=b,c in (d e)"}}),
            "/api/v1/namespaces/dev/pods?labelSelector=a%3Db%2Cc%20in%20%28d%20e%29");
  EXPECT_EQ(object_path(kPods, "dev", "../../secrets/x"), "/api/v1/namespaces/dev/pods/..%2F..%2Fsecrets%2Fx");
  EXPECT_EQ(object_path(kPods, "dev", "a?b#c%2F"), "/api/v1/namespaces/dev/pods/a%3Fb%23c%252F");
  EXPECT_EQ(object_path(kPods, "dev", ".."), "/api/v1/namespaces/dev/pods/%252E%252E");
  EXPECT_EQ(object_path(kPods, "..", "x"), "/api/v1/namespaces/%252E%252E/pods/x");
  EXPECT_EQ(object_path(kPods, "dev", "\xc3\xa9\r\n"), "/api/v1/namespaces/dev/pods/%C3%A9%0D%0A");
}

TEST(Resource, ApiVersion) {
  EXPECT_EQ(api_version(kPods), "v1");
  EXPECT_EQ(api_version(kBottles), "bot-bottle.dev/v1alpha1");
}

}  // namespace
}  // namespace bottle::kube
