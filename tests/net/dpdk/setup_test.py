#!/usr/bin/env python3
"""scripts/dpdk-setup on machines made of files: what it says it would do, and what it refuses."""

import os
import pathlib
import subprocess
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[3] / "scripts" / "dpdk-setup"


class SetupTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)

    def write(self, path, text=""):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def card(self, pci, driver="", interface="", state="down", node="0", group=""):
        at = f"sys/bus/pci/devices/{pci}/"
        for name, text in (("class", "0x020000"), ("vendor", "0x8086"), ("device", "0x10fb"), ("numa_node", node)):
            self.write(at + name, text + "\n")
        if driver:
            (self.root / f"sys/bus/pci/drivers/{driver}").mkdir(parents=True, exist_ok=True)
            os.symlink(f"../../drivers/{driver}", self.root / (at + "driver"))
        if interface:
            self.write(at + f"net/{interface}/operstate", state + "\n")
        if group:
            members = self.root / f"sys/kernel/iommu_groups/{group}/devices"
            members.mkdir(parents=True, exist_ok=True)
            os.symlink(self.root / at, members / pci)
            os.symlink(f"../../../../kernel/iommu_groups/{group}", self.root / (at + "iommu_group"))

    def pages(self, count, node=None):
        for at in ("sys/kernel/mm/hugepages/hugepages-2048kB", "sys/devices/system/node/node0/hugepages/hugepages-2048kB"):
            self.write(f"{at}/nr_hugepages", f"{count}\n")
            self.write(f"{at}/free_hugepages", f"{count}\n")

    def run_script(self, *words):
        done = subprocess.run([SCRIPT, *words], env={**os.environ, "DPDK_SETUP_ROOT": str(self.root)},
                              capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    def said(self, *words):
        code, out, errors = self.run_script(*words)
        self.assertEqual((code, errors), (0, ""), words)
        return out

    def refused(self, *words):
        code, out, errors = self.run_script(*words)
        self.assertEqual(code, 1, out)
        self.assertEqual(errors.count("\n"), 1, "one line")
        return errors.strip()

    def test_status(self):
        self.card("0000:81:00.0", "ixgbe", "eth1", "up", node="1", group="7")
        self.write("sys/bus/pci/devices/0000:00:1f.0/class", "0x060100\n")
        self.pages(16)
        out = self.said("status")
        self.assertIn("0000:81:00.0  vendor 0x8086 device 0x10fb  driver ixgbe  NUMA node 1  IOMMU group 7  interfaces eth1", out)
        self.assertNotIn("1f.0", out)
        self.assertIn("IOMMU: on", out)
        self.assertIn("node0 hugepages-2048kB: 16, 16 free", out)

    def test_hugepages(self):
        self.pages(10)
        self.assertIn('would write: "256" to /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages',
                      self.said("hugepages", "512MB"))
        self.assertIn('would write: "2048" to /sys/devices/system/node/node0/', self.said("hugepages", "4GB", "--node", "0"))
        self.assertIn("10 pages of 2 MiB are reserved already", self.said("hugepages", "20MB"))
        self.assertIn("needs a size, such as 512MB", self.refused("hugepages", "many"))
        self.assertIn("this kernel has no 2 MiB pages on node 5", self.refused("hugepages", "20MB", "--node", "5"))

    def test_apply(self):
        self.pages(10)
        self.assertEqual(self.said("hugepages", "512MB", "--apply"), "256 pages of 2 MiB reserved\n")
        self.assertEqual((self.root / "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages").read_text(), "256")

    def test_bind(self):
        self.card("0000:81:00.0", "ixgbe", "eth1", group="7")
        self.write("sys/bus/pci/drivers/vfio-pci/bind")
        self.write("sys/devices/system/node/node0/cpulist", "0-15\n")
        self.assertEqual(self.said("bind", "81:00.0").splitlines(), [
            'would write: "vfio-pci" to /sys/bus/pci/devices/0000:81:00.0/driver_override',
            'would write: "0000:81:00.0" to /sys/bus/pci/devices/0000:81:00.0/driver/unbind',
            'would write: "0000:81:00.0" to /sys/bus/pci/drivers_probe',
            "0000:81:00.0 is on NUMA node 0: let dpdk.lcores name CPUs 0-15",
            "(nothing was changed; add --apply)"])

    def test_bind_refuses(self):
        self.card("0000:81:00.0", "ixgbe", "eth1", "up", group="7")
        self.card("0000:82:00.0", "vfio-pci", group="8")
        self.assertIn("0000:81:00.0 is eth1, which is up: is it your way into this machine?", self.refused("bind", "0000:81:00.0"))
        self.assertIn("driver_override", self.said("bind", "0000:81:00.0", "--force"))
        self.assertIn("is bound to vfio-pci already", self.said("bind", "0000:82:00.0"))
        self.assertIn("there is no PCI device 0000:99:00.0", self.refused("bind", "0000:99:00.0"))
        self.assertIn('"eth1" is no PCI address', self.refused("bind", "eth1"))

    def test_bind_wants_an_iommu(self):
        self.card("0000:81:00.0", "ixgbe")
        self.assertIn("there is no IOMMU: boot with intel_iommu=on", self.refused("bind", "0000:81:00.0"))
        self.write("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n")
        self.assertIn("would run: modprobe vfio-pci", self.said("bind", "0000:81:00.0"))

    def test_others_of_the_group_are_named(self):
        self.card("0000:81:00.0", "ixgbe", group="7")
        self.card("0000:81:00.1", "ixgbe", group="7")
        self.assertIn("note: 0000:81:00.1 is in the same IOMMU group and belongs to ixgbe", self.said("bind", "0000:81:00.0"))

    def test_unbind(self):
        self.card("0000:81:00.0", "vfio-pci", group="7")
        out = self.said("unbind", "0000:81:00.0")
        self.assertIn("/sys/bus/pci/devices/0000:81:00.0/driver_override", out)
        self.assertIn('would write: "0000:81:00.0" to /sys/bus/pci/drivers_probe', out)

    def test_usage(self):
        self.assertEqual(self.run_script()[0], 2)
        self.assertIn("no command dance", self.refused("dance"))
        self.assertIn("no option --dance", self.refused("status", "--dance"))


if __name__ == "__main__":
    program = unittest.main(exit=False, verbosity=0)
    bad = len(program.result.failures) + len(program.result.errors)
    print(f"{program.result.testsRun - bad} passed, {bad} failed")
    raise SystemExit(bad != 0)
