package check_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// decode reads a manifest into Kubernetes' own types: a field that they do not
// have, or have twice, is an error.
func decode(manifest []byte) (runtime.Object, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		appsv1.AddToScheme, autoscalingv2.AddToScheme, batchv1.AddToScheme, corev1.AddToScheme,
		networkingv1.AddToScheme, policyv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	codecs := serializer.NewCodecFactory(scheme, serializer.EnableStrict)
	object, _, err := codecs.UniversalDeserializer().Decode(manifest, nil, nil)
	return object, err
}

// A cluster is what kubectl apply -k would send, by kind.
type cluster struct {
	deployment *appsv1.Deployment
	service    *corev1.Service
	config     *corev1.ConfigMap
	account    *corev1.ServiceAccount
	job        *batchv1.Job
	scaler     *autoscalingv2.HorizontalPodAutoscaler
	budget     *policyv1.PodDisruptionBudget
	network    *networkingv1.NetworkPolicy
}

func kustomize(t *testing.T) (c cluster) {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), root+"/deploy/kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	for _, resource := range built.Resources() {
		if resource.GetNamespace() != "parley" {
			t.Errorf("%s is in the namespace %q", resource.CurId(), resource.GetNamespace())
		}
		manifest, err := resource.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		object, err := decode(manifest)
		if err != nil {
			t.Errorf("%s: %v", resource.CurId(), err)
			continue
		}
		switch o := object.(type) {
		case *appsv1.Deployment:
			c.deployment = o
		case *corev1.Service:
			c.service = o
		case *corev1.ConfigMap:
			c.config = o
		case *corev1.ServiceAccount:
			c.account = o
		case *batchv1.Job:
			c.job = o
		case *autoscalingv2.HorizontalPodAutoscaler:
			c.scaler = o
		case *policyv1.PodDisruptionBudget:
			c.budget = o
		case *networkingv1.NetworkPolicy:
			c.network = o
		default:
			t.Errorf("nobody looks at a %T", o)
		}
	}
	return c
}

// secrets are the settings of the example.
func secrets(t *testing.T) map[string]string {
	t.Helper()
	object, err := decode([]byte(read(t, "deploy/kubernetes/secret.example.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	return object.(*corev1.Secret).StringData
}

func TestAMisspeltManifestIsFound(t *testing.T) {
	t.Parallel()
	text := read(t, "deploy/kubernetes/service.yaml")
	for name, broken := range map[string]string{
		"another name": strings.Replace(text, "targetPort", "targetport", 1),
		"another kind": strings.Replace(text, "kind: Service", "kind: Servant", 1),
		"no number":    strings.Replace(text, "port: 80", "port: eighty", 1),
		"said twice":   text + "spec: {}\n",
	} {
		if _, err := decode([]byte(broken)); err == nil || broken == text {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestTheCluster(t *testing.T) {
	t.Parallel()
	c := kustomize(t)
	settings := secrets(t)
	for name, value := range c.config.Data {
		if _, both := settings[name]; both {
			t.Errorf("%s is a secret and none", name)
		}
		settings[name] = value
	}
	accepts(t, settings)
	if settings["MIGRATE_ON_START"] != "false" {
		t.Error("every replica migrates, and the Job too")
	}

	pod := c.deployment.Spec.Template
	server := labels.Set(pod.Labels)
	checkPod(t, pod.Spec, settings)
	checkPod(t, c.job.Spec.Template.Spec, settings)
	if diff := cmp.Diff(c.job.Spec.Template.Spec.Containers[0].Args, []string{"migrate", "up"}); diff != "" {
		t.Errorf("the migration (-got +want):\n%s", diff)
	}
	if got, want := c.job.Spec.Template.Spec.Containers[0].Image, pod.Spec.Containers[0].Image; got != want {
		t.Errorf("the migration is of %s, and the replicas of %s", got, want)
	}

	// Each selector finds the replicas, and the Service finds no migration.
	for name, selector := range map[string]map[string]string{
		"Deployment":          c.deployment.Spec.Selector.MatchLabels,
		"Service":             c.service.Spec.Selector,
		"PodDisruptionBudget": c.budget.Spec.Selector.MatchLabels,
		"topology":            pod.Spec.TopologySpreadConstraints[0].LabelSelector.MatchLabels,
		"NetworkPolicy":       c.network.Spec.PodSelector.MatchLabels,
	} {
		if !labels.SelectorFromSet(selector).Matches(server) {
			t.Errorf("the %s does not find the replicas: %v", name, selector)
		}
		if name != "NetworkPolicy" && labels.SelectorFromSet(selector).Matches(labels.Set(c.job.Spec.Template.Labels)) {
			t.Errorf("the %s takes a migration for a replica: %v", name, selector)
		}
	}
	if c.scaler.Spec.ScaleTargetRef.Name != c.deployment.Name || *c.scaler.Spec.MinReplicas < 2 || c.deployment.Spec.Replicas != nil {
		t.Error("the autoscaler does not decide how many there are, two at least")
	}

	parley := pod.Spec.Containers[0]
	checkProbes(t, parley, settings)
	grace := time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second
	checkGrace(t, grace, settings, time.Duration(parley.Lifecycle.PreStop.Sleep.Seconds)*time.Second)
	checkMemory(t, settings, parley.Resources.Limits.Memory().Value())
	if _, limited := parley.Resources.Limits[corev1.ResourceCPU]; limited || parley.Resources.Requests.Cpu().IsZero() {
		t.Error("a replica asks for a processor, and is not held back from more")
	}
}

// checkPod checks what a pod may do on its node, and where its settings come from.
func checkPod(t *testing.T, pod corev1.PodSpec, settings map[string]string) {
	t.Helper()
	container := pod.Containers[0]
	secured, inside := pod.SecurityContext, container.SecurityContext
	if !*secured.RunAsNonRoot || *secured.RunAsUser != 65532 || *secured.RunAsGroup != 65532 || secured.SeccompProfile.Type != "RuntimeDefault" {
		t.Errorf("it is not the user of the image: %+v", secured)
	}
	if *inside.AllowPrivilegeEscalation || !*inside.ReadOnlyRootFilesystem || len(inside.Capabilities.Drop) != 1 || inside.Capabilities.Drop[0] != "ALL" {
		t.Errorf("it may do more than it needs: %+v", inside)
	}
	if *pod.AutomountServiceAccountToken {
		t.Error("it has a token for Kubernetes, and needs none")
	}
	if !pinned.MatchString(container.Image) {
		t.Errorf("%s may be another one tomorrow", container.Image)
	}
	var from []string
	for _, source := range container.EnvFrom {
		if source.ConfigMapRef != nil {
			from = append(from, "config "+source.ConfigMapRef.Name)
		}
		if source.SecretRef != nil {
			from = append(from, "secret "+source.SecretRef.Name)
		}
	}
	if diff := cmp.Diff(from, []string{"config parley", "secret parley"}); diff != "" {
		t.Errorf("its settings (-got +want):\n%s", diff)
	}
	mounts := make(map[string]string)
	for _, mount := range container.VolumeMounts {
		mounts[mount.MountPath] = mount.Name
	}
	keys, _, _ := strings.Cut(settings["JWT_KEYS_FILE"], "/keys.json")
	if mounts["/tmp"] == "" || mounts[keys] != "keys" {
		t.Errorf("got the mounts %v, want one for temporary files, and the keys where JWT_KEYS_FILE looks for them", mounts)
	}
}

// checkProbes checks that the container is asked the right questions at the right
// port.
func checkProbes(t *testing.T, container corev1.Container, settings map[string]string) {
	t.Helper()
	ports := make(map[string]int32)
	for _, port := range container.Ports {
		ports[port.Name] = port.ContainerPort
	}
	want := map[string]int32{"http": 8080, "metrics": 9090}
	if diff := cmp.Diff(ports, want); diff != "" || settings["PORT"] != "8080" || settings["METRICS_ADDR"] != ":9090" {
		t.Errorf("PORT is %s, METRICS_ADDR %s, and the ports (-got +want):\n%s", settings["PORT"], settings["METRICS_ADDR"], diff)
	}
	asked := make(map[string]string)
	for name, probe := range map[string]*corev1.Probe{
		"startup": container.StartupProbe, "liveness": container.LivenessProbe, "readiness": container.ReadinessProbe,
	} {
		asked[name] = probe.HTTPGet.Port.String() + probe.HTTPGet.Path
	}
	if diff := cmp.Diff(asked, map[string]string{"startup": "http/livez", "liveness": "http/livez", "readiness": "http/readyz"}); diff != "" {
		t.Errorf("probes (-got +want):\n%s", diff)
	}
}
