#include "net/tls/clients.h"

#include <array>
#include <string>
#include <utility>

#include "config/limits.h"
#include "core/shard.h"
#include "core/timer_wheel.h"
#include "net/tls/filter.h"

namespace peregrine::net::tls {
namespace {

using core::CloseReason;

std::string take(core::Outbox& from) {
  std::string bytes;
  std::array<iovec, 8> pieces;
  while (!from.empty()) {
    size_t size = 0;
    const size_t count = from.gather(pieces.data(), pieces.size(), SIZE_MAX);
    for (size_t n = 0; n < count; ++n) {
      bytes.append(static_cast<const char*>(pieces[n].iov_base), pieces[n].iov_len);
      size += pieces[n].iov_len;
    }
    from.consume(size);
  }
  return bytes;
}

// The handshake of one client. Belongs to its filter.
class Handshake final : public Owner {
 public:
  Handshake(const Clients& clients, core::Session& session) : clients_(clients), session_(session) {}
  ~Handshake() override { timer_.cancel(); }

  void begin(Filter& filter) {
    filter_ = &filter;
    if (clients_.first()) info_ = take(filter.wire);
    patient_ = clients_.first() && clients_.patience_ns() > 0;
    arm(patient_ ? clients_.patience_ns() : clients_.context().timeout_ns());
  }

  void tls_established() override {
    timer_.cancel();
    log().debug("{} - TLS handshake complete", session_.label());
    log().debug("{} - TLS version {}, cipher suite {}", session_.label(), filter_->version(), filter_->cipher_suite());
    if (info_.empty()) return;
    filter_->mark_first();
    session_.send(info_);
    info_.clear();
  }

  void tls_failed(const Failure& failure) override {
    timer_.cancel();
    if (session_.closing()) return;
    // Ports are looked at by load balancers and their like.
    log().log(failure.kind == Failure::Kind::kNotTls ? core::LogLevel::kDebug : core::LogLevel::kError,
              "{} - TLS handshake error: {}", session_.label(), failure.text);
    session_.close(CloseReason::kTlsHandshakeError);
  }

  // What came before is still to be thought about.
  void tls_ended() override {
    ended_ = true;
    arm(0);
  }

 private:
  core::Log& log() { return session_.shard.server().log; }

  void arm(int64_t in_ns) {
    core::Shard& shard = session_.shard;
    shard.timers().arm(timer_, shard.now_ns() + in_ns, this,
                       [](void* self) { static_cast<Handshake*>(self)->on_timer(); });
  }

  void on_timer() {
    if (session_.closing()) return;
    if (ended_) return session_.close(CloseReason::kClientClosed);
    const bool untouched = filter_->untouched();
    if (std::exchange(patient_, false)) {
      if (untouched) {
        filter_->wire.append_line(info_);
        info_.clear();
        session_.shard.mark_dirty(session_);
        if (clients_.plain_too()) filter_->allow_plain();
      }
      return arm(clients_.context().timeout_ns());
    }
    if (filter_->is_plain() || (untouched && filter_->stay_plain())) return;
    log().debug("{} - TLS handshake timeout", session_.label());
    session_.close(CloseReason::kTlsHandshakeError);
  }

  const Clients& clients_;
  core::Session& session_;
  Filter* filter_ = nullptr;
  std::string info_;      // not sent yet
  bool patient_ = false;  // it may still be sent in clear
  bool ended_ = false;
  core::Timer timer_;
};

}  // namespace

Clients::Clients(std::shared_ptr<const Context> context, const config::Options& options)
    : context_(std::move(context)),
      first_(options.tls->handshake_first),
      patience_ns_(options.tls->handshake_first_fallback.count()),
      plain_too_(config::allows_plain_clients(options)) {}

void Clients::secure(core::Session& session) const {
  if (session.closing()) return;  // turned away, in clear
  session.shard.server().log.debug("{} - Starting TLS client connection handshake", session.label());
  auto owned = std::make_unique<Handshake>(*this, session);
  Handshake& handshake = *owned;
  auto filter = std::make_unique<Filter>(&session.shard.pool(), context_, std::string(), handshake);
  Filter& raw = *filter;
  raw.keep(std::move(owned));
  if (plain_too_ && !first_) raw.allow_plain();
  session.set_filter(std::move(filter));
  handshake.begin(raw);
  raw.begin();
}

}  // namespace peregrine::net::tls
