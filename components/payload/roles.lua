-- What each user may ask of this node, by role. Before Orthanc answers a request by HTTP, it asks IncomingHttpRequestFilter; what is
-- not named here is refused with 403. Above these lines, the program writes ROLES: user -> role.
-- The URI comes as it was asked for, decoded, less its query and with "." and ".." resolved (civetweb's local_uri).

-- Orthanc's pages and what describes the node: nobody's images.
local PUBLIC = {'/app', '/ui', '/system', '/plugins', '/favicon.ico'}
-- What is read of images, with the plugins of orthancteam/orthanc that show them.
local READ = {
  '/patients', '/studies', '/series', '/instances', '/statistics', '/dicom-web', '/wado', '/tools/labels', '/tools/create-archive',
  '/tools/create-media', '/ohif', '/stone-webviewer', '/volview', '/web-viewer', '/osimis-viewer', '/wsi',
}
-- Questions that come as a POST, because they are long.
local QUERIES = {
  ['/tools/find'] = true, ['/tools/count-resources'] = true, ['/tools/lookup'] = true, ['/tools/bulk-content'] = true,
}

-- How images are brought: Orthanc's own way, and DICOMweb's.
local UPLOADS = {'^/instances$', '^/dicom%-web/studies$', '^/dicom%-web/studies/[0-9.]+$'}
-- What the forwarder beside the node (forwarder/) asks, and nothing else.
local FORWARDING = {
  GET = {
    '^/changes$', '^/series$', '^/system$', '^/studies/[^/]+$', '^/storage%-commitment/[^/]+$', '^/queries/[^/]+/answers$',
    '^/jobs$', '^/jobs/[^/]+$',
    '^/instances/[^/]+/simplified%-tags$',
  },
  POST = {
    '^/modalities/[^/]+/store$', '^/modalities/[^/]+/query$', '^/modalities/[^/]+/storage%-commitment$', '^/jobs/[^/]+/cancel$',
    '^/instances/[^/]+/attachments/dicom/verify%-md5$',
  },
  PUT = {'^/series/[^/]+/metadata/%d+$'},
}

local function matches(uri, patterns)
  for _, pattern in ipairs(patterns) do
    if string.find(uri, pattern) then
      return true
    end
  end
  return false
end

local function below(uri, places)
  for _, place in ipairs(places) do
    if uri == place or string.sub(uri, 1, #place + 1) == place .. '/' then
      return true
    end
  end
  return false
end

local function is_public(method, uri)
  return method == 'GET' and (uri == '/' or below(uri, PUBLIC))
end

local may = {}

function may.admin()
  return true
end

function may.viewer(method, uri)
  if method == 'POST' then
    return QUERIES[uri] == true
  end
  return is_public(method, uri) or (method == 'GET' and below(uri, READ))
end

function may.uploader(method, uri)
  return is_public(method, uri) or (method == 'POST' and matches(uri, UPLOADS))
end

function may.forwarder(method, uri)
  return matches(uri, FORWARDING[method] or {}) or (method == 'POST' and QUERIES[uri] == true)
    or (method == 'DELETE' and DELETES and matches(uri, {'^/instances/[^/]+$'}))
end

function IncomingHttpRequestFilter(method, uri, ip, username, httpHeaders)
  local role = may[ROLES[username]]
  -- "/instances/" is "/instances" to Orthanc.
  return role ~= nil and role(method, uri == '/' and uri or (string.gsub(uri, '/+$', '')))
end
