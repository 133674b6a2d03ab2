// Command pulumi-resource-docker is the Docker plugin: the Terraform Docker provider behind Pulumi's Terraform bridge.
//
// It answers to the resource and property names of the PyPI package pulumi-docker, whose own plugin is published as a
// download only.
//
//	provider.go  how Terraform's names map to pulumi-docker's
//	main.go      the plugin, with its schema embedded
//	schemagen.go writes that schema (build tag `schemagen`): go generate
package main

import (
	"strings"

	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge"
	shimv2 "github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfshim/sdk-v2"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
	"github.com/terraform-providers/terraform-provider-docker/upstream"
)

// version is the version of pulumi-docker whose names this plugin answers to; the engine looks for exactly that one.
// The build sets it from requirements.txt (ops/setup/go_build.py); this value is for builds by hand.
var version = "5.2.0"

// longestName is what Docker itself leaves room for in names that Pulumi makes up.
const longestName = 255

func resource(name string) tokens.Type {
	return tokens.Type("docker:index/" + strings.ToLower(name[:1]) + name[1:] + ":" + name)
}

func function(name string) tokens.ModuleMember {
	return tokens.ModuleMember("docker:index/" + name + ":" + name)
}

func provider() tfbridge.ProviderInfo {
	info := tfbridge.ProviderInfo{
		P:       shimv2.NewProvider(upstream.New(version)),
		Name:    "docker",
		Version: version,
		Config: map[string]*tfbridge.SchemaInfo{
			"host": {Default: &tfbridge.DefaultInfo{
				EnvVars: []string{"DOCKER_HOST"}, Value: "unix:///var/run/docker.sock",
			}},
			// One registry or several: the bridge would make a single object of a set with one entry.
			"registry_auth": {Name: "registryAuth", MaxItemsOne: tfbridge.False()},
		},
		Resources: map[string]*tfbridge.ResourceInfo{
			"docker_config": {Tok: resource("ServiceConfig")},
			// A container's name and its host ports are unique: the old one must go before the new one comes.
			"docker_container": {Tok: resource("Container"), DeleteBeforeReplace: true, Fields: map[string]*tfbridge.SchemaInfo{
				// Where the bridge would make plurals of its own, pulumi-docker keeps Terraform's names.
				"command":           {Name: "command"},
				"networks_advanced": {Name: "networksAdvanced"},
			}},
			"docker_image":          {Tok: resource("RemoteImage"), Fields: map[string]*tfbridge.SchemaInfo{"name": {Name: "name"}}},
			"docker_network":        {Tok: resource("Network")},
			"docker_plugin":         {Tok: resource("Plugin")},
			"docker_registry_image": {Tok: resource("RegistryImage")},
			"docker_secret":         {Tok: resource("Secret")},
			"docker_service":        {Tok: resource("Service")},
			"docker_tag":            {Tok: resource("Tag")},
			"docker_volume":         {Tok: resource("Volume")},
		},
		DataSources: map[string]*tfbridge.DataSourceInfo{
			"docker_image":                    {Tok: function("getRemoteImage")},
			"docker_logs":                     {Tok: function("getLogs")},
			"docker_network":                  {Tok: function("getNetwork")},
			"docker_plugin":                   {Tok: function("getPlugin")},
			"docker_registry_image":           {Tok: function("getRegistryImage")},
			"docker_registry_image_manifests": {Tok: function("getRegistryImageManifests")},
		},
		// Not in pulumi-docker under these names, or (compose) left out of the build by the tag no_compose.
		IgnoreMappings: []string{"docker_buildx_builder", "docker_compose"},
	}
	// Without this a resource that the program gives no name is refused: its name is required in Terraform.
	info.SetAutonaming(longestName, "-")
	return info
}
