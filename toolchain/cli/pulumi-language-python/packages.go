package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

// declaration is a pulumi-plugin.json: what an installed package says about the plugin behind it.
type declaration struct {
	Resource              bool
	Name, Version, Server string
	Parameterization      *struct {
		Name, Version string
		Value         []byte // base64 in JSON
	}
}

// GetRequiredPackages says which plugins the installed packages need. Every command that runs the program asks first.
func (h *host) GetRequiredPackages(
	ctx context.Context, req *pulumirpc.GetRequiredPackagesRequest,
) (*pulumirpc.GetRequiredPackagesResponse, error) {
	p, err := open(req.Info)
	if err != nil {
		return nil, err
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	declarations, err := h.declarations(ctx, p)
	if err != nil {
		return nil, err
	}
	res := &pulumirpc.GetRequiredPackagesResponse{}
	for _, d := range declarations {
		if !d.Resource || d.Name == "" {
			continue // a library: pulumi_policy, say
		}
		dependency := &pulumirpc.PackageDependency{Kind: "resource", Name: d.Name, Version: vPrefixed(d.Version), Server: d.Server}
		if d.Parameterization != nil {
			dependency.Parameterization = &pulumirpc.PackageParameterization{
				Name: d.Parameterization.Name, Version: d.Parameterization.Version, Value: d.Parameterization.Value,
			}
		}
		res.Packages = append(res.Packages, dependency)
	}
	return res, nil
}

// vPrefixed is the form in which the engine looks for a plugin; no version stays none.
func vPrefixed(version string) string {
	if version == "" {
		return ""
	}
	return "v" + strings.TrimPrefix(version, "v")
}

// listDeclarations prints what every package that Python can import declares.
const listDeclarations = `import importlib.metadata as m, json
print(json.dumps([json.loads(f.locate().read_text()) for d in m.distributions() for f in d.files or []
                  if f.name == "pulumi-plugin.json"]))`

// declarations reads the pulumi-plugin.json files: straight from a virtual environment where that shows them all,
// through Python elsewhere. Python takes a quarter of a second for it, the file system a millisecond.
func (h *host) declarations(ctx context.Context, p *program) ([]declaration, error) {
	if files, ok := declarationFiles(p.virtualenv); ok {
		declarations := make([]declaration, len(files))
		for i, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			if err := json.Unmarshal(content, &declarations[i]); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
		}
		return declarations, nil
	}
	cmd, err := h.python(ctx, p, "-c", listDeclarations)
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, explain(p, err)
	}
	var declarations []declaration
	return declarations, json.Unmarshal(out, &declarations)
}

// systemPackages is the line of pyvenv.cfg that lets a virtual environment see the packages outside it.
var systemPackages = regexp.MustCompile(`(?mi)^\s*include-system-site-packages\s*=\s*true\s*$`)

// declarationFiles finds a virtual environment's pulumi-plugin.json files. It answers false where a package may lie
// elsewhere: no environment, one that sees the system's packages, or packages installed as editable.
func declarationFiles(venv string) ([]string, bool) {
	config, err := os.ReadFile(filepath.Join(venv, "pyvenv.cfg"))
	if venv == "" || err != nil || systemPackages.Match(config) {
		return nil, false
	}
	for _, editable := range []string{"__editable__*", "*.egg-link", "easy-install.pth"} {
		if len(sitePackages(venv, editable)) > 0 {
			return nil, false
		}
	}
	return sitePackages(venv, "*", "pulumi-plugin.json"), true
}

// sitePackages globs in a virtual environment's site-packages.
func sitePackages(venv string, pattern ...string) []string {
	found, _ := filepath.Glob(filepath.Join(append([]string{venv, "lib", "python*", "site-packages"}, pattern...)...))
	return found
}

// check says, before any Python starts, what is missing in the virtual environment and how to put it right.
func (p *program) check() error {
	if p.virtualenv == "" {
		return nil // the Python on PATH, or the one that poetry or uv finds
	}
	if _, err := os.Stat(filepath.Join(p.virtualenv, "bin", "python")); err != nil {
		// Stat follows the link: an environment whose Python has been removed or upgraded away is found here too.
		return fmt.Errorf("there is no Python virtual environment in %s\n%s", p.virtualenv, p.install())
	}
	if _, whole := declarationFiles(p.virtualenv); whole && len(sitePackages(p.virtualenv, "pulumi", "__init__.py")) == 0 {
		return fmt.Errorf("the package pulumi is not installed in the virtual environment %s\n%s", p.virtualenv, p.install())
	}
	return nil
}

// install is the hint: how this project's Python packages get installed.
func (p *program) install() string {
	hint := "To install what the program needs: "
	if _, err := os.Stat(filepath.Join(p.info.RootDirectory, "Makefile")); err == nil {
		hint += "make up, or: "
	}
	if p.virtualenv == "" {
		return hint + "pulumi install"
	}
	venv := p.virtualenv
	if relative, err := filepath.Rel(p.info.RootDirectory, venv); err == nil && filepath.IsLocal(relative) {
		venv = relative
	}
	return hint + fmt.Sprintf("python3 -m venv --clear %s && %s -m pip install -r requirements.txt",
		venv, filepath.Join(venv, "bin", "python"))
}

// InstallDependencies is `pulumi install`: it makes the virtual environment and installs what the project lists.
func (h *host) InstallDependencies(
	req *pulumirpc.InstallDependenciesRequest, stream pulumirpc.LanguageRuntime_InstallDependenciesServer,
) error {
	p, err := open(req.Info)
	if err != nil {
		return err
	}
	closer, stdout, stderr, err := rpcutil.MakeInstallDependenciesStreams(stream, req.IsTerminal)
	if err != nil {
		return err
	}
	defer closer.Close()
	err = p.InstallDependencies(stream.Context(), req.Info.ProgramDirectory, req.UseLanguageVersionTools, true, stdout, stderr)
	if err != nil {
		return err
	}
	return closer.Close() // flushes the pseudo-terminal before the stream ends
}

// About is the line "This project is written in python" of `pulumi about`.
func (h *host) About(ctx context.Context, req *pulumirpc.AboutRequest) (*pulumirpc.AboutResponse, error) {
	p, err := open(req.Info)
	if err != nil {
		return nil, err
	}
	about, err := p.About(ctx)
	if err != nil {
		return nil, err
	}
	return &pulumirpc.AboutResponse{Executable: about.PythonExecutable, Version: about.PythonVersion.String()}, nil
}

// GetProgramDependencies is the list of packages in `pulumi about`.
func (h *host) GetProgramDependencies(
	ctx context.Context, req *pulumirpc.GetProgramDependenciesRequest,
) (*pulumirpc.GetProgramDependenciesResponse, error) {
	p, err := open(req.Info)
	if err != nil {
		return nil, err
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	packages, err := p.ListPackages(ctx, req.TransitiveDependencies)
	if err != nil {
		return nil, err
	}
	res := &pulumirpc.GetProgramDependenciesResponse{}
	for _, installed := range packages {
		res.Dependencies = append(res.Dependencies, &pulumirpc.DependencyInfo{Name: installed.Name, Version: installed.Version})
	}
	return res, nil
}

// RuntimeOptionsPrompts and Template are what `pulumi new` asks for; this host has no questions and changes nothing.
func (h *host) RuntimeOptionsPrompts(
	context.Context, *pulumirpc.RuntimeOptionsRequest,
) (*pulumirpc.RuntimeOptionsResponse, error) {
	return &pulumirpc.RuntimeOptionsResponse{}, nil
}

func (h *host) Template(context.Context, *pulumirpc.TemplateRequest) (*pulumirpc.TemplateResponse, error) {
	return &pulumirpc.TemplateResponse{}, nil
}
