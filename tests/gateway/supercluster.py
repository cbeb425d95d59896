"""Several clusters with gateways between them."""

import contextlib
import os
import sys
import time

from broker import until
from nodes import HOST, Cluster, Ports

PATIENCE_S = 20


def lists_interest(node):
    return node.program.letter not in "DO"


class SuperCluster:
    """clusters[i][j] is node j of cluster i, whose name is c<i+1>. `knows`: for each cluster the clusters it is configured with.
    `hosts`: where they live (world.Host), one each, in order; `extra`: beside the gateway block, of every node."""

    def __init__(self, mix, knows=None, options="", hosts=None, extra=""):
        self.clusters = []
        self.gateway_ports = []
        self.hosts = list(hosts or [])
        for i, programs in enumerate(mix):
            own = [self.hosts.pop(0) for _ in programs] if hosts else None
            cluster = Cluster(programs, name=f"c{i + 1}", hosts=own)
            for j, node in enumerate(cluster.nodes):
                node.name = f"c{i + 1}n{j + 1}"
            self.clusters.append(cluster)
            self.gateway_ports.append([7222 if hosts else Ports.take() for _ in programs])
        everyone = range(len(mix))
        knows = knows or [[other for other in everyone if other != i] for i in everyone]
        for i, cluster in enumerate(self.clusters):
            remotes = "\n".join(
                f"    {{ name: c{other + 1}, urls: [{', '.join(self.gateway_url(other, j) for j in range(len(mix[other])))}] }}"
                for other in knows[i])
            for j in range(len(cluster.nodes)):
                listen = "0.0.0.0" if hosts else HOST
                cluster.extra[j] = (f'{extra}\ngateway {{\n  name: c{i + 1}\n  listen: "{listen}:{self.gateway_ports[i][j]}"\n'
                                    f"  gateways = [\n{remotes}\n  ]\n  {options}\n}}")

    def gateway_url(self, i, j):
        where = self.clusters[i][j].where
        return f'"nats://{where.address if where else HOST}:{self.gateway_ports[i][j]}"'

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        if kind is not None and os.environ.get("GATEWAY_LOGS"):
            for node in self.nodes():
                print(f"==== log of {node.name}\n{node.log()}", file=sys.stderr)
        for cluster in self.clusters:
            cluster.__exit__(None, *rest)

    def __getitem__(self, index):
        return self.clusters[index]

    def nodes(self):
        return [node for cluster in self.clusters for node in cluster.nodes]

    def start(self, formed=True):
        for cluster in self.clusters:
            cluster.start(formed=False)
        if formed:
            for cluster in self.clusters:
                if len(cluster) > 1:
                    cluster.formed()
            self.formed()
        return self

    def problem(self):
        names = {f"c{i + 1}" for i in range(len(self.clusters))}
        for i, cluster in enumerate(self.clusters):
            for node in cluster.nodes:
                if not node.running():
                    continue
                seen = node.get_json("/gatewayz")
                others = names - {f"c{i + 1}"}
                out = set(seen.get("outbound_gateways") or {})
                if out != others:
                    return f"{node.name} has outbound gateways to {sorted(out)}, not to {sorted(others)}"
        for i, cluster in enumerate(self.clusters):
            # Every live server of every other cluster has one connection to some server of this one.
            for k, other in enumerate(self.clusters):
                if i == k:
                    continue
                wanted = sum(node.running() for node in other.nodes)
                got = sum(len((node.get_json("/gatewayz").get("inbound_gateways") or {}).get(f"c{k + 1}", []))
                          for node in cluster.nodes if node.running())
                if got != wanted:
                    return f"c{i + 1} has {got} inbound connections from c{k + 1}, not {wanted}"
        return None

    def formed(self, timeout_s=PATIENCE_S):
        problem = "nothing seen"
        deadline = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(OSError, ValueError):
                problem = self.problem()
                if problem is None:
                    return self
            if time.monotonic() > deadline:
                raise AssertionError(f"no super-cluster after {timeout_s} s: {problem}\n" +
                                     "\n".join(f"{node.name}: {node.log_tail()[-500:]}" for node in self.nodes()))
            time.sleep(0.1)

    def client(self, i, j, **options):
        return self.clusters[i].client(j, **options)

    def wait_for_interest(self, at, subject, wanted=True):
        """Until every other cluster's servers know (or know no more) that cluster `at` wants `subject`."""
        def look():
            for i, cluster in enumerate(self.clusters):
                if i == at:
                    continue
                for node in cluster.nodes:
                    if node.running() and lists_interest(node) and (subject in self.interest(node, f"c{at + 1}")) != wanted:
                        return False
            return True
        assert until(look, PATIENCE_S, 0.05), f"interest of c{at + 1} in {subject}: not {wanted} everywhere"
        if not all(lists_interest(node) for node in self.nodes()):
            time.sleep(0.7)  # nats-server 2.9 does not say

    @staticmethod
    def interest(node, cluster):
        """Subjects that cluster wants, as this node's outbound connection to it knows."""
        remote = (node.get_json("/gatewayz?accs=1&acc_name=$G&subs=1").get("outbound_gateways") or {}).get(cluster)
        for account in (remote or {}).get("accounts") or []:
            if account["name"] == "$G":
                return account.get("subscriptions_list") or []
        return []
