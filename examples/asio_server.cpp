// boost::asio, whose acceptor adopts the descriptor.
//
//   asio_server 127.0.0.1:8080
#include "lines.h"

#include <continuity/upgrader.h>

#include <boost/asio.hpp>
#include <exception>
#include <iostream>
#include <memory>
#include <utility>

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

class Session : public std::enable_shared_from_this<Session> {
 public:
  explicit Session(tcp::socket socket) : socket_(std::move(socket)) {}
  void run() {
    socket_.async_wait(tcp::socket::wait_read, [self = shared_from_this()](auto error) {
      if (!error && answer(self->socket_.native_handle()) != 0) {
        self->run();
      }
    });
  }

 private:
  tcp::socket socket_;
};

class Server {
 public:
  // ready() comes before: asio makes the socket non-blocking.
  Server(asio::io_context& context, SocketUpgrader& upgrader, int sock)
      : upgrader_(upgrader),
        acceptor_(context, tcp::v4(), sock),
        event_(context, upgrader.event_descriptor()) {
    accept();
    watch();
  }
  ~Server() { event_.release(); }  // not ours to close
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

 private:
  void accept() {
    acceptor_.async_accept([this](auto error, tcp::socket client) {
      if (!error) {
        std::make_shared<Session>(std::move(client))->run();
      }
      if (acceptor_.is_open()) {
        accept();
      }
    });
  }
  void watch() {
    event_.async_wait(asio::posix::descriptor_base::wait_read, [this](auto error) {
      if (error) {
        return;
      }
      if (upgrader_.outcome().state == continuity::UpgradeState::completed) {
        acceptor_.close();  // and the context runs until the last connection has ended
      } else {
        watch();
      }
    });
  }

  SocketUpgrader& upgrader_;
  tcp::acceptor acceptor_;
  asio::posix::stream_descriptor event_;
};

}  // namespace

int main(int argc, char** argv) try {
  SocketUpgrader upgrader;
  const int sock = upgrader.listen(argc > 1 ? argv[1] : "127.0.0.1:8080");
  if (sock < 0 || !upgrader.ready()) {
    std::cerr << upgrader.error() << '\n';
    return 1;
  }
  asio::io_context context;
  const Server server(context, upgrader, sock);
  say_listening();
  context.run();
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
