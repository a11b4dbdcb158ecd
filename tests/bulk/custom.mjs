// Checks objects of Prometheus operator and KEDA against their schemas. Usage: custom.mjs FILE, a JSON list of objects
import { readFileSync } from "node:fs";
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

const kinds = { "keda.sh/v1alpha1 ScaledObject": ScaledObject, "monitoring.coreos.com/v1 ServiceMonitor": ServiceMonitor };
const objects = JSON.parse(readFileSync(process.argv[2], "utf8"));
for (const object of objects) {
  const name = `${object.apiVersion} ${object.kind}`;
  if (!kinds[name]) throw new Error(`no schema for ${name}`);
  new kinds[name](object).validate();
}
console.log(`${objects.length} objects of ${new Set(objects.map((object) => object.kind)).size} kinds`);
