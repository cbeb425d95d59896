#include "net/control/control_loop.h"

namespace peregrine::net::control {

void ControlLoop::run(Signals& signals) {
  while (!done_) {
    const auto signal = signals.wait(lame_duck_ ? 20 : -1);
    if (signal) on_signal(*signal);
    if (lame_duck_) lame_duck_step();
  }
}

void ControlLoop::on_signal(Signal signal) {
  log_.info("Trapped \"{}\" signal", signal_text(signal));
  switch (signal) {
    case Signal::kInterrupt:
      done_ = true;
      return;
    case Signal::kTerminate:
      if (!lame_duck_) done_ = true;  // lame duck mode is already the way out
      return;
    case Signal::kReload:
      return reload();
    case Signal::kReopenLog:
      log_.reopen();
      return;
    case Signal::kLameDuck:
      begin_lame_duck();
      return;
  }
}

// Certificates are renewed while the server runs; the rest of the configuration is read at the start alone.
void ControlLoop::reload() {
  for (const auto& [name, context] : certificates_) {
    if (const std::string error = context->reload(); error.empty()) log_.info("Reloaded: {} = certificates", name);
    else log_.error("Failed to reload server configuration: {}: {}", name, error);
  }
  log_.warn("config reload comes with a later version; nothing{} was changed",
            certificates_.empty() ? "" : " but certificates");
}

void ControlLoop::begin_lame_duck() {
  if (lame_duck_) return;
  log_.info("Entering lame duck mode, stop accepting new clients");
  broker_.stop_listening();
  server_.change_info([](core::ServerInfo& info) {
    info.lame_duck = true;
    info.connect_urls.clear();
  });
  tell_peers_();
  if (server_.clients() == 0) {
    done_ = true;
    return;
  }
  lame_duck_ = true;
  closing_at_ns_ = monotonic_ns() + server_.options.lame_duck_grace_period.count();
  broker_.run_on_shards(
      [](core::Shard& shard) {
        shard.announce_info();
        return true;
      },
      5000);
}

void ControlLoop::lame_duck_step() {
  if (server_.clients() == 0) {
    log_.info("All clients are gone");
    done_ = true;
    return;
  }
  if (closing_at_ns_ == 0 || monotonic_ns() < closing_at_ns_) return;
  closing_at_ns_ = 0;
  log_.info("Closing existing clients");
  const int64_t over = (server_.options.lame_duck_duration - server_.options.lame_duck_grace_period).count();
  broker_.run_on_shards(
      [over](core::Shard& shard) {
        shard.begin_lame_duck(over);
        return true;
      },
      5000);
}

}  // namespace peregrine::net::control
