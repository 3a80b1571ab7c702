// The kinds PodMonitor and PrometheusRule, for tests/manifests.rs: files of the module, nothing is built from it.
module dsn.invalid/tools/prometheus-operator

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
