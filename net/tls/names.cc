#include "net/tls/names.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace peregrine::net::tls {
namespace {

struct Suite {
  std::string_view go, openssl;  // openssl: empty for those of TLS 1.3
  bool insecure = false;
};
constexpr std::array<Suite, 25> kSuites = {{
    {"TLS_AES_128_GCM_SHA256", ""},
    {"TLS_AES_256_GCM_SHA384", ""},
    {"TLS_CHACHA20_POLY1305_SHA256", ""},
    {"TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "ECDHE-ECDSA-AES128-SHA"},
    {"TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", "ECDHE-ECDSA-AES256-SHA"},
    {"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "ECDHE-RSA-AES128-SHA"},
    {"TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", "ECDHE-RSA-AES256-SHA"},
    {"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"},
    {"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"},
    {"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"},
    {"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384"},
    {"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"},
    {"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305"},
    {"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "ECDHE-ECDSA-CHACHA20-POLY1305"},
    {"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"},
    {"TLS_RSA_WITH_AES_128_CBC_SHA", "AES128-SHA", true},
    {"TLS_RSA_WITH_AES_256_CBC_SHA", "AES256-SHA", true},
    {"TLS_RSA_WITH_AES_128_CBC_SHA256", "AES128-SHA256", true},
    {"TLS_RSA_WITH_AES_128_GCM_SHA256", "AES128-GCM-SHA256", true},
    {"TLS_RSA_WITH_AES_256_GCM_SHA384", "AES256-GCM-SHA384", true},
    {"TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", "ECDHE-ECDSA-AES128-SHA256", true},
    {"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", "ECDHE-RSA-AES128-SHA256", true},
    {"TLS_RSA_WITH_3DES_EDE_CBC_SHA", "-", true},
    {"TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA", "-", true},
    {"TLS_RSA_WITH_RC4_128_SHA", "-", true},
}};

struct Curve {
  std::string_view go, openssl;
};
constexpr std::array<Curve, 7> kCurves = {{{"X25519", "X25519"},
                                           {"CurveP256", "P-256"},
                                           {"CurveP384", "P-384"},
                                           {"CurveP521", "P-521"},
                                           {"X25519MLKEM768", ""},
                                           {"SecP256r1MLKEM768", ""},
                                           {"SecP384r1MLKEM1024", ""}}};

}  // namespace

config::Result<std::string> cipher_list(const std::vector<std::string>& names, bool allow_insecure) {
  std::string list;
  std::string insecure;
  for (const std::string& name : names) {
    const auto suite = std::find_if(kSuites.begin(), kSuites.end(), [&](const Suite& each) { return each.go == name; });
    if (suite == kSuites.end()) return config::Error{fmt::format("unrecognized cipher {}", name)};
    if (suite->insecure) insecure += (insecure.empty() ? "" : ", ") + name;
    if (suite->openssl == "-")
      return config::Error{fmt::format("cipher {} is not supported: OpenSSL has given it up", name)};
    if (!suite->openssl.empty()) list.append(list.empty() ? "" : ":").append(suite->openssl);
  }
  if (!insecure.empty() && !allow_insecure) {
    return config::Error{fmt::format(
        "insecure cipher suites configured without 'allow_insecure_cipher_suites' option set: {}", insecure)};
  }
  return list;
}

config::Result<std::string> group_list(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) {
    const auto curve = std::find_if(kCurves.begin(), kCurves.end(), [&](const Curve& each) { return each.go == name; });
    if (curve == kCurves.end()) return config::Error{fmt::format("unrecognized curve preference {}", name)};
    if (curve->openssl.empty()) {
      return config::Error{
          fmt::format("curve preference {} is not supported by this version yet: OpenSSL 3.0 has none", name)};
    }
    list.append(list.empty() ? "" : ":").append(curve->openssl);
  }
  return list;
}

}  // namespace peregrine::net::tls
