package prometheus

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

var ours = regexp.MustCompile(`mochi_webhook_[a-z_]+`)

// checkNames fails the test if an expression has a metric that there is not.
func checkNames(t *testing.T, where, expr string) {
	t.Helper()
	found := ours.FindAllString(expr, -1)
	if len(found) == 0 {
		t.Errorf("%s: no metric in %q", where, expr)
	}
	known := metricNames(t)
	for _, name := range found {
		if !slices.Contains(known, strings.TrimSuffix(name, "_bucket")) {
			t.Errorf("%s: no such metric as %s, in %q", where, name, expr)
		}
	}
}

func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	type pos struct{ X, Y, W, H int }
	var dashboard struct {
		Title, UID string
		Panels     []struct {
			ID      int
			Title   string
			GridPos pos
			Targets []struct{ Expr, RefID string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	if dashboard.Title == "" || dashboard.UID == "" || len(dashboard.Panels) == 0 {
		t.Fatalf("got %+v, want a title, a uid and panels", dashboard)
	}
	ids := make(map[int]string)
	for i, p := range dashboard.Panels {
		if other, ok := ids[p.ID]; ok {
			t.Errorf("panels %q and %q have the id %d", p.Title, other, p.ID)
		}
		ids[p.ID] = p.Title
		if len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q: got %d targets at %+v, want some within 24 columns", p.Title, len(p.Targets), p.GridPos)
		}
		for _, target := range p.Targets {
			checkNames(t, p.Title, target.Expr)
		}
		for _, q := range dashboard.Panels[:i] {
			a, b := p.GridPos, q.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("panels %q and %q overlap", p.Title, q.Title)
			}
		}
	}
	for _, name := range metricNames(t) {
		if !strings.Contains(string(text), name) {
			t.Errorf("no panel has %s", name)
		}
	}
}

func TestAlerts(t *testing.T) {
	text, err := os.ReadFile("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	dec := yaml.NewDecoder(strings.NewReader(string(text)))
	dec.KnownFields(true)
	if err := dec.Decode(&file); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			checkNames(t, rule.Alert, rule.Expr)
			if rule.Alert == "" || seen[rule.Alert] || rule.Labels["severity"] == "" ||
				rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
				t.Errorf("got %+v, want a name of its own, a severity, a summary and a description", rule)
			}
			seen[rule.Alert] = true
		}
	}
	if len(seen) == 0 {
		t.Error("no rules")
	}
}
