// A raw client in the simulation: what a test says and hears over one stream. Owned by the Network.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "net/sim/network.h"

namespace peregrine::net::sim {

class Client final : public Endpoint {
 public:
  Client(Network& network, const std::string& from, const Address& to);  // made by Network::dial()

  void send(std::string_view bytes);  // any time, any amount: what does not fit the window waits here
  void finish();                      // FIN after what was sent; still hears
  void close();                       // FIN after what was sent, then gone: what still arrives is answered by a reset
  void reset();
  // A slow consumer: nothing is read, so the window fills.
  void stop_reading() { reading_ = false; }
  void start_reading();

  bool connected() const { return connected_; }
  bool ended() const { return ended_; }  // the server finished, or error()
  int error() const { return error_; }   // -errno: refused or reset
  const std::string& received() const { return received_; }
  std::string take() { return std::exchange(received_, {}); }
  size_t unsent() const { return unsent_.size(); }
  Address local_address() const { return stream_->end[0].address; }

  std::function<void(Client&)> on_bytes;  // after received() has grown

 private:
  void connected(uint32_t handle, int error) override;
  void arrived(uint32_t handle) override;
  void room(uint32_t handle) override;
  void push();

  Network& network_;
  std::shared_ptr<Stream> stream_;
  std::string unsent_;
  std::string received_;
  bool connected_ = false;
  bool reading_ = true;
  bool ended_ = false;
  bool finishing_ = false;
  bool closing_ = false;
  bool gone_ = false;
  int error_ = 0;
};

}  // namespace peregrine::net::sim
