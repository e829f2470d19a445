#include "controller/kube/client_stream_multi.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace bottle::kube {

using Clock = std::chrono::steady_clock;

bool StreamMulti::init() {
  multi_ = curl_multi_init();
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  if (!multi_ || epoll_ < 0) return false;
  curl_multi_setopt(multi_, CURLMOPT_SOCKETFUNCTION, on_socket);
  curl_multi_setopt(multi_, CURLMOPT_SOCKETDATA, this);
  curl_multi_setopt(multi_, CURLMOPT_TIMERFUNCTION, on_timer);
  curl_multi_setopt(multi_, CURLMOPT_TIMERDATA, this);
  return true;
}

StreamMulti::~StreamMulti() {
  if (multi_) curl_multi_cleanup(multi_);
  if (epoll_ >= 0) close(epoll_);
}

int StreamMulti::on_socket(CURL*, curl_socket_t fd, int what, void* self, void*) {
  int epoll = static_cast<StreamMulti*>(self)->epoll_;
  epoll_event event{};
  event.data.fd = fd;
  if (what == CURL_POLL_REMOVE) {
    epoll_ctl(epoll, EPOLL_CTL_DEL, fd, &event);  // fails when it is closed already, which removed it
    return 0;
  }
  if (what & CURL_POLL_IN) event.events |= EPOLLIN;
  if (what & CURL_POLL_OUT) event.events |= EPOLLOUT;
  if (epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event) != 0 && errno == ENOENT) return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -1;
  return 0;
}

int StreamMulti::on_timer(CURLM*, long ms, void* self) {
  static_cast<StreamMulti*>(self)->timer_ = ms < 0 ? Clock::time_point::max() : Clock::now() + std::chrono::milliseconds(ms);
  return 0;
}

void StreamMulti::perform() {
  int running = 0;
  std::array<epoll_event, 64> events;
  int n = epoll_wait(epoll_, events.data(), events.size(), 0);
  for (int i = 0; i < n; ++i) {
    int mask = 0;
    if (events[i].events & EPOLLIN) mask |= CURL_CSELECT_IN;
    if (events[i].events & EPOLLOUT) mask |= CURL_CSELECT_OUT;
    if (events[i].events & (EPOLLERR | EPOLLHUP)) mask |= CURL_CSELECT_ERR | CURL_CSELECT_IN;
    curl_multi_socket_action(multi_, events[i].data.fd, mask, &running);
  }
  if (Clock::now() >= timer_) {
    timer_ = Clock::time_point::max();
    curl_multi_socket_action(multi_, CURL_SOCKET_TIMEOUT, 0, &running);
  }
}

}  // namespace bottle::kube
