// RSA keys made ahead, because one costs 0.1-0.2 s of CPU and a launch should not wait for it. One thread of low priority; any thread takes.
#ifndef CONTROLLER_RECONCILE_KEY_POOL_H_
#define CONTROLLER_RECONCILE_KEY_POOL_H_

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "controller/pki/pki.h"

namespace bottle::reconcile {

class KeyPool {
 public:
  explicit KeyPool(size_t capacity);  // 0: no thread, every key is made when it is asked for
  ~KeyPool();
  Result<pki::PrivateKey> take(KeyType type);
  size_t ready() const;

 private:
  void fill();
  const size_t capacity_;
  mutable std::mutex mutex_;
  std::condition_variable wanted_;
  std::vector<pki::PrivateKey> keys_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace bottle::reconcile

#endif  // CONTROLLER_RECONCILE_KEY_POOL_H_
