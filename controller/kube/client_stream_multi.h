// The multi that streams run on. They need one of their own: libcurl keeps per host and multi whether the server can multiplex, and an
// answer over HTTP/1.1 turns that off for the requests beside it. It is driven by its sockets, so that the loop can wait for it and
// for the requests' multi in one call. Private to this folder; one thread.
#ifndef CONTROLLER_KUBE_CLIENT_STREAM_MULTI_H_
#define CONTROLLER_KUBE_CLIENT_STREAM_MULTI_H_

#include <curl/curl.h>

#include <chrono>

namespace bottle::kube {

class StreamMulti {
 public:
  StreamMulti() = default;
  ~StreamMulti();
  StreamMulti(const StreamMulti&) = delete;
  StreamMulti& operator=(const StreamMulti&) = delete;
  bool init();
  CURLM* multi() const { return multi_; }
  int poll_fd() const { return epoll_; }  // readable when perform() has something to do
  std::chrono::steady_clock::time_point next_timer() const { return timer_; }
  void perform();

 private:
  static int on_socket(CURL*, curl_socket_t fd, int what, void* self, void* known);
  static int on_timer(CURLM*, long ms, void* self);
  CURLM* multi_ = nullptr;
  int epoll_ = -1;
  std::chrono::steady_clock::time_point timer_ = std::chrono::steady_clock::time_point::max();
};

}  // namespace bottle::kube

#endif  // CONTROLLER_KUBE_CLIENT_STREAM_MULTI_H_
