// The words of the NATS wire protocol shared by parser, encoder and sessions: limits, error texts, close reasons.
// Source: nats-server's server/const.go, server/errors.go and server/client.go; parity.md sections 0, 1.12 and 1.13.
#pragma once

#include <cstdint>
#include <string_view>

namespace peregrine::core {

inline constexpr std::string_view kCrLf = "\r\n";
inline constexpr std::string_view kOk = "+OK\r\n";
inline constexpr std::string_view kPing = "PING\r\n";
inline constexpr std::string_view kPong = "PONG\r\n";

// -ERR '...' texts, exact: clients compare them.
namespace error_text {
inline constexpr std::string_view kUnknownProtocolOperation = "Unknown Protocol Operation";
inline constexpr std::string_view kAuthorizationViolation = "Authorization Violation";
inline constexpr std::string_view kAuthenticationTimeout = "Authentication Timeout";
inline constexpr std::string_view kMaxConnections = "maximum connections exceeded";
inline constexpr std::string_view kMaxSubscriptions = "maximum subscriptions exceeded";
inline constexpr std::string_view kMaxPayload = "Maximum Payload Violation";
inline constexpr std::string_view kMaxControlLine = "maximum control line exceeded";
inline constexpr std::string_view kInvalidPublishSubject = "Invalid Publish Subject";
inline constexpr std::string_view kInvalidSubject = "Invalid Subject";
inline constexpr std::string_view kStaleConnection = "Stale Connection";
inline constexpr std::string_view kInvalidClientProtocol = "invalid client protocol";
inline constexpr std::string_view kNoRespondersNeedHeaders = "no responders requires headers support";
inline constexpr std::string_view kTlsRequired = "Secure Connection - TLS Required";
}  // namespace error_text

enum class CloseReason : uint8_t {
  kNone,
  kClientClosed,
  kAuthenticationTimeout,
  kAuthenticationFailure,
  kSlowConsumerPendingBytes,
  kSlowConsumerWriteDeadline,
  kWriteError,
  kReadError,
  kParseError,
  kStaleConnection,
  kProtocolViolation,
  kBadClientProtocolVersion,
  kMaxConnections,
  kMaxPayload,
  kMaxControlLine,
  kMaxSubscriptions,
  kServerShutdown,
  kNoRespondersNeedHeaders,
  kWrongPort,
  kDuplicateRoute,
  kRouteRemoved,
  kWrongGateway,
  kMissingAccount,
  kClusterNameConflict,
  kDuplicateServerName,
  kDuplicateRemoteLeafnode,
  kMinimumVersionRequired,
  kClusterNamesIdentical,
  kTlsHandshakeError,
};

constexpr std::string_view text(CloseReason reason) {
  switch (reason) {
    case CloseReason::kNone:
      return "";
    case CloseReason::kClientClosed:
      return "Client Closed";
    case CloseReason::kAuthenticationTimeout:
      return "Authentication Timeout";
    case CloseReason::kAuthenticationFailure:
      return "Authentication Failure";
    case CloseReason::kSlowConsumerPendingBytes:
      return "Slow Consumer (Pending Bytes)";
    case CloseReason::kSlowConsumerWriteDeadline:
      return "Slow Consumer (Write Deadline)";
    case CloseReason::kWriteError:
      return "Write Error";
    case CloseReason::kReadError:
      return "Read Error";
    case CloseReason::kParseError:
      return "Parse Error";
    case CloseReason::kStaleConnection:
      return "Stale Connection";
    case CloseReason::kProtocolViolation:
      return "Protocol Violation";
    case CloseReason::kBadClientProtocolVersion:
      return "Bad Client Protocol Version";
    case CloseReason::kMaxConnections:
      return "Maximum Connections Exceeded";
    case CloseReason::kMaxPayload:
      return "Maximum Message Payload Exceeded";
    case CloseReason::kMaxSubscriptions:
      return "Maximum Subscriptions Exceeded";
    case CloseReason::kMaxControlLine:
      return "Maximum Control Line Exceeded";
    case CloseReason::kServerShutdown:
      return "Server Shutdown";
    case CloseReason::kNoRespondersNeedHeaders:
      return "No Responders Requires Headers";
    case CloseReason::kWrongPort:
      return "Incorrect Port";
    case CloseReason::kDuplicateRoute:
      return "Duplicate Route";
    case CloseReason::kRouteRemoved:
      return "Route Removed";
    case CloseReason::kWrongGateway:
      return "Wrong Gateway";
    case CloseReason::kMissingAccount:
      return "Missing Account";
    case CloseReason::kClusterNameConflict:
      return "Cluster Name Conflict";
    case CloseReason::kDuplicateServerName:
      return "Duplicate Server Name";
    case CloseReason::kDuplicateRemoteLeafnode:
      return "Duplicate Remote LeafNode Connection";
    case CloseReason::kMinimumVersionRequired:
      return "Minimum Version Required";
    case CloseReason::kClusterNamesIdentical:
      return "Cluster Names Identical";
    case CloseReason::kTlsHandshakeError:
      return "TLS Handshake Failure";
  }
  return "Unknown State";
}

}  // namespace peregrine::core
