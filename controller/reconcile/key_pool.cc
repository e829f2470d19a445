#include "controller/reconcile/key_pool.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace bottle::reconcile {

KeyPool::KeyPool(size_t capacity) : capacity_(capacity) {
  if (capacity_ > 0) thread_ = std::thread([this] { fill(); });
}

KeyPool::~KeyPool() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wanted_.notify_all();
  if (thread_.joinable()) thread_.join();
}

size_t KeyPool::ready() const {
  std::lock_guard lock(mutex_);
  return keys_.size();
}

Result<pki::PrivateKey> KeyPool::take(KeyType type) {
  if (type == KeyType::kRsa2048 && capacity_ > 0) {
    std::unique_lock lock(mutex_);
    if (!keys_.empty()) {
      pki::PrivateKey key = std::move(keys_.back());
      keys_.pop_back();
      lock.unlock();
      wanted_.notify_one();
      return key;
    }
  }
  return pki::make_key(type);
}

void KeyPool::fill() {
  // Linux gives each thread its own nice value: keys are made when nothing else wants the CPU.
  setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), 19);
  std::unique_lock lock(mutex_);
  while (!stop_) {
    if (keys_.size() >= capacity_) {
      wanted_.wait(lock);
      continue;
    }
    lock.unlock();
    auto key = pki::make_key(KeyType::kRsa2048);
    lock.lock();
    if (!key) return;  // the crypto library refuses: who takes one gets the reason
    keys_.push_back(std::move(*key));
  }
}

}  // namespace bottle::reconcile
