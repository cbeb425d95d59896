#include "net/sim/client.h"

namespace peregrine::net::sim {

Client::Client(Network& network, const std::string& from, const Address& to) : network_(network) {
  stream_ = network_.connect(from, to, this, 0);
}

void Client::connected(uint32_t, int error) {
  error_ = error;
  ended_ = error < 0;
  gone_ = error < 0;
  connected_ = error == 0;
  push();
}

void Client::send(std::string_view bytes) {
  unsent_ += bytes;
  push();
}

void Client::push() {
  if (!connected_ || gone_) return;
  if (!unsent_.empty() && stream_->end[0].error == 0) unsent_.erase(0, network_.write(*stream_, 0, unsent_));
  if (!unsent_.empty()) return;
  if (finishing_ || closing_) network_.finish(*stream_, 0);
  if (closing_) {
    gone_ = true;
    network_.leave(*stream_, 0);
  }
}

void Client::finish() {
  finishing_ = true;
  push();
}

void Client::close() {
  closing_ = true;
  push();
}

void Client::reset() {
  gone_ = true;
  network_.reset(*stream_, 0);
}

void Client::start_reading() {
  reading_ = true;
  if (connected_ && !gone_) arrived(0);
}

void Client::room(uint32_t) { push(); }

void Client::arrived(uint32_t) {
  if (!reading_) return;
  const End& end = stream_->end[0];
  const std::string bytes = network_.read(*stream_, 0, end.inbox.size());
  received_ += bytes;
  if (end.ended || end.error != 0) {
    ended_ = true;
    error_ = end.error;
  }
  if (on_bytes && !bytes.empty()) on_bytes(*this);
}

}  // namespace peregrine::net::sim
